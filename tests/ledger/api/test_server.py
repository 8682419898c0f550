"""The process: what it has accepted is recorded and signed when it is asked to end; what watches it is told."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread

import httpx
import pytest
from nectar_ledger.log.published import Published
from nectar_ledger.log.reader import LogReader
from nectar_ledger.store.engines import open_database
from nectar_ledger_client.signing import signature_headers
from nectar_protocol.checkpoint import Checkpoint
from nectar_protocol.entries import Settled
from nectar_protocol.entry import parse_entry
from nectar_protocol.hold import Hold, SignedHold
from nectar_protocol.identity import Identity
from nectar_protocol.textual import parse_base64

from tests.ledger.api.conftest import Serve
from tests.ledger.api.served import LIFE_MS, NODE, Served, usual
from tests.ledger.world import START_MS, World, person


@contextmanager
def running(folder: Path, **environment: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The process, and its URL."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.ledger.api.process", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def open_hold(http: httpx.Client, world: World, session: Identity) -> Hold:
    order = world.open_hold(session, session, {NODE: world.policy.free_cap_units}, START_MS + LIFE_MS)
    answer = http.post("/v1/commands", content=order.signed.pack())
    return SignedHold.unpack(parse_base64(answer.json()["hold"], "the hold")).hold


def post_until_it_ends(url: str, world: World, hold: Hold, session: Identity, acknowledged: dict[bytes, int]) -> None:
    """Receipts of one session, one by one; the last seq that was acknowledged is kept."""
    with httpx.Client(base_url=url, timeout=30) as http:
        for seq in range(1, 1_000):
            body = world.receipt(hold, NODE, session, seq, seq).receipt.pack()
            headers = signature_headers(NODE, "POST", f"{url}/v1/receipts", body, START_MS // 1000)
            try:
                answer = http.post("/v1/receipts", content=body, headers=headers)
            except httpx.TransportError:
                return
            if answer.status_code == 503:
                return
            assert answer.json()["results"][0]["status"] == "settled", answer.text
            acknowledged[hold.id] = seq


def test_sigterm_ends_the_process_with_all_that_it_accepted_recorded_and_signed(tmp_path: Path) -> None:
    world, acknowledged = World(), {}
    usual(world)  # as the process has done already: IDs of commands are counted
    with running(tmp_path) as (process, url), ExitStack() as stack:
        http = stack.enter_context(httpx.Client(base_url=url, timeout=30))
        sessions = [person(f"session {number}") for number in range(4)]
        holds = [open_hold(http, world, session) for session in sessions]
        listener = stack.enter_context(http.stream("GET", "/v1/events"))
        heard = listener.iter_lines()
        threads = [
            Thread(target=post_until_it_ends, args=(url, world, hold, session, acknowledged))
            for hold, session in zip(holds, sessions, strict=True)
        ]
        for thread in threads:
            thread.start()
        while sum(acknowledged.values()) < 20:
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(60)
        assert process.wait(60) == 0
        # The listener was sent home, and not cut off.
        assert sum(line.startswith("event: settle") for line in heard) > 0
    database = open_database(f"sqlite:///{tmp_path / 'ledger.db'}")
    log = LogReader(database)
    settled = [parse_entry(log.entry(index)).body for index in range(log.size())]
    newest = {body.receipt.receipt.hold: body.receipt.receipt.seq for body in settled if isinstance(body, Settled)}
    assert acknowledged
    assert all(newest[hold] >= seq for hold, seq in acknowledged.items())
    note = Published(tmp_path / "published").read()
    assert note is not None
    assert Checkpoint.parse(note.text).size == log.size()
    database.writing.dispose()


def test_systemd_is_told_when_the_ledger_is_ready_and_when_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(path))
        supervisor.settimeout(60)
        with running(tmp_path, NOTIFY_SOCKET=str(path)) as (process, url):
            assert supervisor.recv(100) == b"READY=1"
            assert httpx.get(f"{url}/readyz").status_code == 200
            process.send_signal(signal.SIGINT)
            assert supervisor.recv(100) == b"STOPPING=1"
            assert process.wait(60) == 0


def test_a_ledger_that_serves_lives_and_is_ready(served: Served) -> None:
    assert served.http.get("/livez").json() == "ok"
    assert served.http.get("/readyz").json() == "ok"


def test_a_ledger_whose_sequencer_has_ended_lives_and_is_not_ready(serve: Serve) -> None:
    served = serve()
    served.service._sequencer.close()
    assert served.http.get("/livez").status_code == 200
    answer = served.http.get("/readyz")
    assert (answer.status_code, answer.json()["error"]) == (503, "stopped")
    answer = served.command(served.world.fund(person("alice"), 1_000))
    assert (answer.status_code, answer.json()["error"]) == (503, "stopped")
    assert served.metric("nectar_ready") == 0


def test_metrics_count_by_route_and_not_by_path(served: Served) -> None:
    for number in range(5):
        served.http.get(f"/v1/evidence/{number:064x}")
        served.http.get(f"/nowhere/{number}")
    name = 'nectar_http_requests_total{method="GET",route="/v1/evidence/{evidence}",status="404"}'
    assert served.metric(name) == 5
    assert served.metric('nectar_http_requests_total{method="GET",route="none",status="404"}') == 5
    assert served.metric("nectar_log_size") == served.service.durable_size
    assert served.metric("process_cpu_seconds_total") > 0


@pytest.mark.parametrize("path", ["/nowhere", "/v1/commands"])
def test_what_is_not_there_is_answered_like_every_error(served: Served, path: str) -> None:
    answer = served.http.put(path)
    assert answer.status_code in (404, 405)
    assert set(answer.json()) == {"error", "message"}


def test_the_api_describes_itself_and_loads_no_script_of_others(served: Served) -> None:
    assert served.http.get("/openapi.json").json()["openapi"].startswith("3.")
    assert served.http.get("/docs").status_code == served.http.get("/redoc").status_code == 404
