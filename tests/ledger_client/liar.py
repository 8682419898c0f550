"""A server on loopback that answers as it is told, whatever a ledger would say."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from queue import Queue
from threading import Thread
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from nectar_ledger_client.call import Call
from nectar_ledger_client.errors import RefusedError
from nectar_protocol.logproof import LogProof

from tests.ledger_client.paper import PaperLog

Told = Response | object


class Liar:
    """`tell` says what to answer to whom asks for a path: a response, bytes, or a value for JSON; a list of these is
    told one after the other, the last for ever. `heard` are the requests.
    """

    def __init__(self) -> None:
        self.heard: list[tuple[str, dict[str, str]]] = []
        self.url = ""
        self.log: PaperLog | None = None
        self._told: dict[str, list[Callable[[], Any]]] = {}
        self.app = FastAPI()
        self.app.add_api_route("/{path:path}", self._answer, methods=["GET", "POST"])

    def tell(self, path: str, *answers: Callable[[], Any]) -> None:
        self._told[path] = list(answers)

    async def _answer(self, request: Request) -> Response:
        path = request.url.path
        await request.body()
        self.heard.append((path, dict(request.headers)))
        answers = self._told.get(path)
        if answers is None:
            return self._of_log(request)
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        told = answer()
        if isinstance(told, Response):
            return told
        return Response(told) if isinstance(told, bytes) else JSONResponse(told)

    def _of_log(self, request: Request) -> Response:
        """As an honest ledger with this log."""
        call: Call[bytes] = Call(request.url.path, bytes, params=dict(request.query_params))
        try:
            if self.log is None or not call.path.startswith("/log/"):
                raise RefusedError("not-found", "there is nothing", 404)
            return Response(self.log.answer(call))
        except RefusedError as error:
            return refusal(error.status, error.code)


def refusal(status: int, code: str, **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return JSONResponse({"error": code, "message": "so the liar says"}, status, named)


def drip(piece: bytes, media_type: str = "application/octet-stream") -> Response:
    """A piece now and then, without an end."""

    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield piece
            await asyncio.sleep(0.02)

    return StreamingResponse(pieces(), media_type=media_type)


def flood(piece: bytes = bytes(1 << 16)) -> Response:
    """As much as the client takes."""

    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield piece
            await asyncio.sleep(0)

    return StreamingResponse(pieces())


def without_entry(proof: LogProof) -> bytes:
    return LogProof(proof.index, proof.hashes, proof.checkpoint).pack()


@contextmanager
def lying() -> Iterator[Liar]:
    liar, started = Liar(), Queue[str]()

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            started.put("http://{}:{}".format(*self.servers[0].sockets[0].getsockname()[:2]))

    server = Server(
        uvicorn.Config(
            liar.app, "127.0.0.1", 0, ws="none", lifespan="off", log_config=None, timeout_graceful_shutdown=1
        )
    )
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    liar.url = started.get(timeout=30)
    yield liar
    server.should_exit = True
    thread.join(30)
