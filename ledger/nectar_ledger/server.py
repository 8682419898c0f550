"""The ledger's process: serves the API until SIGTERM or SIGINT, then records and signs all that was accepted.

Made to be supervised: it tells systemd when it is ready (`Type=notify`), and ends with 0 when it was asked to.
"""

import asyncio
import contextlib
import gc
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from nectar_ledger.errors import ListenError

MAX_CONNECTIONS = 2_000
MAX_HEAD_BYTES = 32 << 10
HEAD_S = 10
KEEP_ALIVE_S = 15
DRAIN_S = 30
BACKLOG = 2048
GC_THRESHOLDS = (10_000, 20, 20)


class Protocol(HttpToolsProtocol):
    """HTTP with bounds on how large a request's head is, and how slowly it may come."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
        super().connection_made(transport)
        self._begin_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begin_head()

    def on_headers_complete(self) -> None:
        self._end_head()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_timer is not None and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response(f"more than {MAX_HEAD_BYTES} bytes of headers")

    def _begin_head(self) -> None:
        if self._head_timer is None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(HEAD_S, self.transport.abort)

    def _end_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class Server(uvicorn.Server):
    """Serves one application. `bound` is called with its URL once it answers there."""

    def __init__(self, app: FastAPI, listener: socket.socket, bound: Callable[[str], None] | None = None) -> None:
        self._app, self._listener, self._bound = app, listener, bound
        super().__init__(
            uvicorn.Config(
                app, loop="uvloop", http=Protocol, ws="none", lifespan="on", access_log=False,
                server_header=False, log_config=None, limit_concurrency=MAX_CONNECTIONS,
                timeout_keep_alive=KEEP_ALIVE_S, timeout_graceful_shutdown=DRAIN_S,
            )
        )  # fmt: skip

    @property
    def url(self) -> str:
        """Where it listens, once it has started."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([self._listener])
        if self.started:
            if self._bound is not None:
                self._bound(self.url)
            _notify("READY=1")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        _notify("STOPPING=1")
        # Listeners to events would not go by themselves.
        self._app.state.feed.close()
        await super().shutdown([self._listener])


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. Raises ListenError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ListenError(f"cannot listen on {host}, port {port}: {error.strerror}; choose others") from error


def serve(app: FastAPI, listener: socket.socket, bound: Callable[[str], None] | None = None) -> None:
    """Serve until a signal comes; `bound` is called with the URL once the ledger answers there.

    For the main thread of a process that does nothing else.
    """
    # What is here stays here: the collector would walk over it again and again while receipts come.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    before = signal.getsignal(signal.SIGTERM)
    # uvicorn drains at the first SIGTERM and raises it once more when it is done.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            Server(app, listener, bound).run()
    finally:
        signal.signal(signal.SIGTERM, before)


def _notify(state: str) -> None:
    """Tell systemd, if that has started us."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address is None:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifying, contextlib.suppress(OSError):
        # A name that begins with @ is of the abstract namespace.
        notifying.sendto(state.encode(), f"\0{address[1:]}" if address.startswith("@") else address)
