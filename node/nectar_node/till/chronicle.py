"""What was received in sessions under holds, all of it and in order, for whoever shows the session's signature.

A History forgets what was rolled back; here it stays, for as long as the session's record does. A request pins that.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from nectar_protocol.errors import SignatureError
from nectar_protocol.identity import PeerID, PublicKey
from nectar_protocol.opening import MAX_REQUEST_LIFE_MS
from nectar_swarm.frames import Kind
from nectar_swarm.history import Stored
from nectar_swarm.link import Link
from nectar_swarm.messages import Error, ErrorCode, Step
from nectar_swarm.past import HistoryCall, Past

from nectar_node.archive import Kept, Record
from nectar_node.background import in_thread
from nectar_node.errors import FullError, PaymentError, RecordError

MAX_TOLD_AT_ONCE = 2  # histories, to one peer
CROWDED_S = 60.0  # after which it gets no more


@dataclass(frozen=True)
class Heard:
    """A step that came; its hidden states lie in the record."""

    first: int
    last: int
    position: int
    reorder: tuple[int, ...]
    stored: Stored

    async def load(self) -> Step:
        """Raises RecordError."""
        here = isinstance(self.stored, Kept) and self.stored.tensor is not None
        hidden = self.stored.load() if here else await in_thread(self.stored.load)
        return Step(self.first, self.last, self.position, hidden, self.reorder)


@dataclass(eq=False)
class Volume:
    """One session's, from its opening to its end."""

    record: Record
    heard: list[Heard] = field(default_factory=list)

    def hear(self, step: Step, stored: Stored) -> None:
        self.heard.append(Heard(step.first, step.last, step.position, step.reorder, stored))


class Chronicles:
    """Of one node, by hold and session key; a session that was opened again has several volumes."""

    def __init__(self, node: PublicKey, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._node, self._now_ms = node, now_ms
        self._volumes: dict[tuple[bytes, PublicKey], list[Volume]] = {}
        self._telling: Counter[PeerID] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, hold: bytes, session: PublicKey, record: Record) -> Volume:
        """A session has been opened."""
        volume, key = Volume(record), (hold, session)
        self._volumes.setdefault(key, []).append(volume)

        def drop() -> None:
            volumes = self._volumes[key]
            volumes.remove(volume)
            if not volumes:
                del self._volumes[key]

        record.on_drop = drop
        return volume

    def ask(self, link: Link, number: int, payload: bytes) -> None:
        """Pin what is asked for and begin to tell it. Raises PaymentError, MalformedError."""
        call = HistoryCall.unpack(payload)
        request = call.request
        volumes = self._volumes.get((request.hold, request.session))
        if request.node != self._node or volumes is None:
            raise PaymentError("this node has no history of such a session")
        life_ms = request.expires_ms - self._now_ms()
        if not 0 < life_ms <= MAX_REQUEST_LIFE_MS:
            raise PaymentError(f"a history is asked for within {MAX_REQUEST_LIFE_MS // 3_600_000} hours from now")
        try:
            request.verify(call.signature)
        except SignatureError as error:
            raise PaymentError("the session's key has not signed this request") from error
        if self._telling[link.peer] >= MAX_TOLD_AT_ONCE:
            raise PaymentError(f"{MAX_TOLD_AT_ONCE} histories are on their way to you already")
        try:
            for volume in volumes:
                volume.record.pin(life_ms / 1000)
        except FullError as error:
            raise PaymentError(str(error)) from error
        heard = [step for volume in volumes for step in volume.heard]
        self._telling[link.peer] += 1
        task = asyncio.create_task(self._tell(link, number, heard))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, link: Link, number: int, heard: list[Heard]) -> None:
        """Part by part, as fast as the link takes them."""
        try:
            if not heard:
                link.send(number, Kind.PAST, Past(0, 0, None).pack())
            for at, one in enumerate(heard, 1):
                await _clear(link)
                link.send(number, Kind.PAST, Past(len(heard), at, await one.load()).pack())
                await asyncio.sleep(0)
        except TimeoutError:
            pass
        except RecordError as error:
            link.send(number, Kind.ERROR, Error(ErrorCode.FAILED, str(error)).pack(link.version))
        finally:
            self._telling[link.peer] -= 1
            if not self._telling[link.peer]:
                del self._telling[link.peer]

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()


async def _clear(link: Link) -> None:
    """Until the link takes more. Raises TimeoutError for one that does not, as one that has ended."""
    if link.crowded:
        clear = asyncio.Event()
        link.when_clear(clear.set)
        async with asyncio.timeout(CROWDED_S):
            await clear.wait()
