"""A ledger that is served with witnesses shows what they have cosigned, to who asks for it."""

import time
from collections.abc import Callable
from pathlib import Path
from queue import Queue
from threading import Thread

import httpx
import pytest
from nectar_ledger.api.app import create_app
from nectar_ledger.log.witness import Witness
from nectar_ledger.server import Server, listen
from nectar_protocol.checkpoint import open_checkpoint
from nectar_protocol.logproof import LogProof
from nectar_protocol.note import Kind, Note, NoteKey

from tests.ledger.api.served import Clock, open_service
from tests.ledger.watcher import Watcher, serve
from tests.ledger.world import ORIGIN, World

LOG_KEY = NoteKey(ORIGIN, Kind.NOTE, World().keys.log.public)


def eventually(get: Callable[[], httpx.Response]) -> httpx.Response:
    """The first answer that is a success."""
    for _ in range(600):
        answer = get()
        if answer.status_code == 200:
            return answer
        assert answer.status_code == 404
        time.sleep(0.05)
    pytest.fail("no checkpoint was cosigned")


def test_a_checkpoint_is_served_with_the_lines_of_its_witnesses(tmp_path: Path) -> None:
    watcher = Watcher("witness.example/one", LOG_KEY)
    started: Queue[str] = Queue()
    with serve(watcher):
        service = open_service(tmp_path, World(), Clock())
        app = create_app(service, witnesses=[Witness(watcher.key, watcher.url)])
        server = Server(app, listen("127.0.0.1", 0), started.put)
        thread = Thread(target=server.run, daemon=True)
        thread.start()
        with httpx.Client(base_url=started.get(timeout=30)) as http:
            note = Note.unpack(eventually(lambda: http.get("/log/checkpoint?witnesses=1")).content)
            opened = open_checkpoint(note, LOG_KEY, [watcher.key])
            proof = LogProof.unpack(http.get("/log/proof/0?witnesses=1").content)
            two = http.get("/log/checkpoint?witnesses=2")
        server.should_exit = True
        thread.join(60)
    assert set(opened.witnesses) == {watcher.key}
    assert opened.checkpoint.size == watcher.size
    assert set(proof.verify(service.log.entry(0), LOG_KEY, [watcher.key]).witnesses) == {watcher.key}
    assert (two.status_code, two.json()["error"]) == (404, "not-found")
    service.database.writing.dispose()
