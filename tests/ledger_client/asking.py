"""The two clients behind one face, so that a test asks both: whatever they return comes back as a value or a list."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from inspect import isawaitable
from typing import Any

from nectar_ledger_client.aclient import AsyncLedgerClient
from nectar_ledger_client.client import LedgerClient
from nectar_ledger_client.log import AsyncLogFollower, LogFollower


class Asker:
    """Asks with a `LedgerClient`."""

    def __init__(self, address: str, *arguments: Any, **settings: Any) -> None:
        self._client: Any = LedgerClient(address, *arguments, **settings)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments, **more: self._value(getattr(self._client, name)(*arguments, **more))

    def follow(self, *arguments: Any, **more: Any) -> Any:
        """A log follower, behind the same face."""
        return Face(LogFollower(self._client, *arguments, **more), self._value)

    def events(self, count: int, after: int | None = None) -> list[Any]:
        events = self._client.events(after)
        found = [next(events) for _ in range(count)]
        events.close()
        return found

    def _value(self, result: Any) -> Any:
        return list(result) if isinstance(result, Iterator) else result

    def end(self) -> None:
        self._client.close()


class AsyncAsker(Asker):
    """Asks with an `AsyncLedgerClient`, in a loop of its own."""

    def __init__(self, address: str, *arguments: Any, **settings: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncLedgerClient(address, *arguments, **settings)

    def follow(self, *arguments: Any, **more: Any) -> Any:
        return Face(AsyncLogFollower(self._client, *arguments, **more), self._value)

    def events(self, count: int, after: int | None = None) -> list[Any]:
        async def take() -> list[Any]:
            events = self._client.events(after)
            found = [await anext(events) for _ in range(count)]
            await events.aclose()
            return found

        return self._runner.run(take())

    def _value(self, result: Any) -> Any:
        async def collect() -> Any:
            if isawaitable(result):
                return await result
            return [item async for item in result]

        if isawaitable(result) or isinstance(result, AsyncIterator):
            return self._runner.run(collect())
        return result

    def end(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()


class Face:
    """Any object whose methods' results become values."""

    def __init__(self, inner: Any, value: Callable[[Any], Any]) -> None:
        self._inner, self._value = inner, value

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found
        return lambda *arguments, **more: self._value(found(*arguments, **more))
