"""A server laid out like a hub, on loopback: one repository, the files of a folder, faults on request, and counts.

Large files are redirected to another path, as to a content network. A fault is for one file (or the model's
description, INFO) and so many requests.
"""

import hashlib
import http.server
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from nectar_swarm.hub import HubAccess
from nectar_swarm.retries import Retries

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "someone/llama"
INFO = "model info"


@dataclass
class Fault:
    """What goes wrong with the answers to come: an error, a cut after so many bytes, a wrong last byte, a stall."""

    times: int = 1
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    damaged: bool = False
    stalls: bool = False  # after `cut_after` bytes, until `HubServer.go_on` is set


@dataclass
class HubServer:
    folder: Path
    url: str
    server: http.server.ThreadingHTTPServer
    commit: str = COMMIT
    faults: dict[str, Fault] = field(default_factory=dict)
    stopped: bool = False
    missing: set[str] = field(default_factory=set)
    ignores_ranges: bool = False
    requests: Counter[str] = field(default_factory=Counter)
    sent_bytes: Counter[str] = field(default_factory=Counter)
    ranges: list[tuple[str, str]] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        self.stopped = True
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()

    def fetched(self) -> list[str]:
        """The weight files that were asked for."""
        return sorted(name for name in self.requests if name.endswith(".safetensors"))

    def fault(self, name: str) -> Fault | None:
        """The fault of this answer, if it has one."""
        fault = self.faults.get(name)
        if fault is None or fault.times == 0:
            return None
        fault.times -= 1
        return fault

    def siblings(self) -> list[dict[str, Any]]:
        paths = [path for path in sorted(self.folder.iterdir()) if path.name not in self.missing]
        return [describe(path) for path in paths]


def describe(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    entry: dict[str, Any] = {"rfilename": path.name, "size": len(data), "blobId": git_sha1(data)}
    if path.suffix == ".safetensors":
        entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return entry


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        if self.hub.stopped:  # on a connection that was kept
            self.close_connection = True
            return
        path = self.path.partition("?")[0]
        name = path.rpartition("/")[2]
        if path in (f"/api/models/{REPOSITORY}/revision/{revision}" for revision in ("main", COMMIT)):
            self.hub.requests[INFO] += 1
            if not self.failed(self.hub.fault(INFO)):
                info = {"id": REPOSITORY, "sha": self.hub.commit, "siblings": self.hub.siblings()}
                self.reply(200, {"Content-Type": "application/json"}, json.dumps(info).encode(), body)
        elif path == f"/content/{name}" and (self.hub.folder / name).is_file():
            self.content(name, body)
        elif path == f"/{REPOSITORY}/resolve/{COMMIT}/{name}" and (self.hub.folder / name).is_file():
            self.resolve(name, body)
        else:
            self.hub.requests["?"] += 1
            code = "RevisionNotFound" if path.startswith(f"/api/models/{REPOSITORY}/") else "RepoNotFound"
            self.reply(404, {"X-Error-Code": code}, b"", body)

    def resolve(self, name: str, body: bool) -> None:
        if not name.endswith(".safetensors"):
            return self.content(name, body)
        described = describe(self.hub.folder / name)
        linked = {"X-Linked-Etag": f'"{described["lfs"]["sha256"]}"', "X-Linked-Size": str(described["size"])}
        self.reply(302, {"X-Repo-Commit": COMMIT, "Location": f"{self.hub.url}/content/{name}", **linked}, b"", body)

    def content(self, name: str, body: bool) -> None:
        self.hub.requests[name] += 1
        fault = self.hub.fault(name) or Fault()
        if self.failed(fault):
            return
        data = (self.hub.folder / name).read_bytes()
        etag = describe(self.hub.folder / name).get("lfs", {}).get("sha256") or git_sha1(data)
        status, headers = 200, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
        if fault.damaged:
            data = data[:-1] + bytes([data[-1] ^ 1])
        if (asked := self.headers.get("Range")) and not self.hub.ignores_ranges:
            self.hub.ranges.append((name, asked))
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            status, headers["Content-Range"] = 206, f"bytes {start}-{len(data) - 1}/{len(data)}"
            data = data[start:]
        self.reply(status, headers, data, body, fault, name)

    def failed(self, fault: Fault | None) -> bool:
        if fault is None or not fault.status:
            return False
        self.reply(fault.status, fault.headers, b"", body=False)
        return True

    def reply(
        self, status: int, headers: dict[str, str], data: bytes, body: bool, fault: Fault | None = None, name: str = ""
    ) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if not body:
            return
        part = data if fault is None or fault.cut_after is None else data[: fault.cut_after]
        self.wfile.write(part)
        self.hub.sent_bytes[name] += len(part)
        if fault is not None and fault.stalls:
            self.hub.stalled.set()
            self.hub.go_on.wait(30)
        if len(part) < len(data):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed hang up."""


@contextmanager
def serve(folder: Path) -> Iterator[HubServer]:
    """A hub until the block ends."""
    page = type("PageOfHub", (Page,), {})
    with _Server(("127.0.0.1", 0), page) as server:
        hub = HubServer(folder, f"http://127.0.0.1:{server.server_port}", server)
        page.hub = hub  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield hub
        hub.stop()
        thread.join()


def access(hub: HubServer, **options: Any) -> HubAccess:
    """This hub for our code, which loses no time between its tries."""
    return HubAccess(hub.url, retries=Retries(first_s=0.001), **options)


def let_ask_hubs(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests are offline otherwise. No user's token is shown to the server."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
