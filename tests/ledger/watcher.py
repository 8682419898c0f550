"""A small witness that is really served: c2sp.org/tlog-witness, for one log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Queue
from threading import Thread

import uvicorn
from fastapi import FastAPI, Request, Response
from nectar_protocol.checkpoint import open_checkpoint
from nectar_protocol.errors import ProofError, ProtocolError, SignatureError
from nectar_protocol.identity import Identity
from nectar_protocol.merkle import EMPTY_ROOT
from nectar_protocol.note import Kind, Note, NoteKey, cosign_text
from nectar_protocol.proofs import verify_consistency
from nectar_protocol.textual import parse_base64, parse_decimal

PREFIX = "/w/1"


class Watcher:
    """What it has cosigned last is `size` and `root`; `asked` are the bodies of all requests."""

    def __init__(self, name: str, log: NoteKey) -> None:
        self.identity = Identity.from_seed(name.encode().ljust(32, b"\0"))
        self.key = NoteKey(name, Kind.COSIGNATURE, self.identity.public)
        self.size, self.root = 0, EMPTY_ROOT
        self.asked: list[bytes] = []
        # Makes another answer of the right one.
        self.distort: Callable[[Response], Response] = lambda response: response
        self.url = ""
        self._log = log

    def add_checkpoint(self, body: bytes) -> Response:
        self.asked.append(body)
        head, _, packed = body.partition(b"\n\n")
        first, *lines = head.decode().split("\n")
        old = parse_decimal(first.removeprefix("old "), "the old size")
        note = Note.unpack(packed)
        try:
            checkpoint = open_checkpoint(note, self._log).checkpoint
        except SignatureError:
            return Response(status_code=403)
        if old > checkpoint.size:
            return Response(status_code=400)
        if old != self.size or (old == checkpoint.size and checkpoint.root != self.root):
            return Response(f"{self.size}\n", 409, media_type="text/x.tlog.size")
        proof = [parse_base64(line, "a hash") for line in lines]
        try:
            if old:
                verify_consistency(old, checkpoint.size, proof, self.root, checkpoint.root)
            elif proof:
                return Response(status_code=422)
        except ProofError:
            return Response(status_code=422)
        self.size, self.root = checkpoint.size, checkpoint.root
        return Response(str(cosign_text(note.text, self.key.name, self.identity, int(time.time()))))

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post(f"{PREFIX}/add-checkpoint")
        async def add_checkpoint(request: Request) -> Response:
            try:
                return self.distort(self.add_checkpoint(await request.body()))
            except ProtocolError:
                return Response(status_code=400)

        return app


class _Server(uvicorn.Server):
    """Says on which port it listens."""

    def __init__(self, app: FastAPI, started: "Queue[int]") -> None:
        super().__init__(uvicorn.Config(app, "127.0.0.1", 0, lifespan="off", log_config=None, ws="none"))
        self._started = started

    async def startup(self, sockets: object = None) -> None:
        await super().startup()
        self._started.put(self.servers[0].sockets[0].getsockname()[1])


@contextmanager
def serve(watcher: Watcher) -> Iterator[None]:
    """On loopback, at `watcher.url`."""
    started: Queue[int] = Queue()
    server = _Server(watcher.app(), started)
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    watcher.url = f"http://127.0.0.1:{started.get(timeout=30)}{PREFIX}"
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
