"""Requests to a ledger, sent by many connections side by side: as fast as answers come, or at a fixed rate."""

import http.client
import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import urlsplit

from nectar_ledger_client.signing import signature_headers
from nectar_protocol.identity import Identity

TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Request:
    """One POST. A batch of receipts has a `sender`, who signs it when it is sent; `address` is where it comes from."""

    path: str
    body: bytes
    sender: Identity | None = None
    address: str = "127.0.0.1"


@dataclass
class Sent:
    """What became of requests: `latencies_s` of those that were answered with 200, ascending; why others were not."""

    elapsed_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def p99_s(self) -> float:
        return self.latencies_s[math.ceil(0.99 * len(self.latencies_s)) - 1]


OnAnswer = Callable[[Request, Any], None]


class Connections:
    """One thread's, by the address they come from."""

    def __init__(self, url: str) -> None:
        self._url, self._netloc = url, urlsplit(url).netloc
        self._open: dict[str, http.client.HTTPConnection] = {}

    def post(self, request: Request) -> tuple[int, bytes]:
        """Status and body. Raises OSError or HTTPException if the ledger is gone."""
        connection = self._open.get(request.address)
        if connection is None:
            connection = http.client.HTTPConnection(
                self._netloc, timeout=TIMEOUT_S, source_address=(request.address, 0)
            )
            self._open[request.address] = connection
        headers = {"Content-Type": "application/octet-stream"}
        if request.sender is not None:
            url = self._url + request.path
            headers |= signature_headers(request.sender, "POST", url, request.body, int(time.time()))
        connection.request("POST", request.path, request.body, headers)
        response = connection.getresponse()
        return response.status, response.read()

    def close(self) -> None:
        for connection in self._open.values():
            connection.close()


def send(
    url: str,
    requests: Sequence[Request],
    connections: int,
    per_s: float | None = None,
    on_answer: OnAnswer = lambda request, answer: None,
) -> Sent:
    """Send each once; `per_s` of them a second, or else as fast as answers come. Ends early when the ledger is gone.

    In an open loop a request's latency counts from when it was due, so the wait for a free connection is in it.
    """
    waiting: SimpleQueue[tuple[float | None, Request]] = SimpleQueue()
    begin_s = time.perf_counter()
    for number, request in enumerate(requests):
        waiting.put((None if per_s is None else begin_s + number / per_s, request))
    sent = Sent()
    threads = [threading.Thread(target=_work, args=(url, waiting, sent, on_answer)) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sent.elapsed_s = time.perf_counter() - begin_s
    sent.latencies_s.sort()
    return sent


def _work(url: str, waiting: "SimpleQueue[tuple[float | None, Request]]", sent: Sent, on_answer: OnAnswer) -> None:
    connections = Connections(url)
    try:
        while True:
            due_s, request = waiting.get_nowait()
            if due_s is not None:
                time.sleep(max(0.0, due_s - time.perf_counter()))
            begun_s = due_s or time.perf_counter()
            status, body = connections.post(request)
            if status != 200:
                sent.failures.append(f"{status} {body[:300].decode(errors='replace')}")
                continue
            sent.latencies_s.append(time.perf_counter() - begun_s)
            on_answer(request, json.loads(body))
    except Empty:
        return
    except (OSError, http.client.HTTPException) as error:
        sent.failures.append(f"{type(error).__name__}: {error}")
    finally:
        connections.close()
