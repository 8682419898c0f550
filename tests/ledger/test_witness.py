"""Witnesses are asked as c2sp.org/tlog-witness says, believed under their keys, and never waited for."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import Response
from nectar_ledger.errors import ForkError, WitnessError
from nectar_ledger.log.reader import LogReader
from nectar_ledger.log.witness import (
    MAX_ANSWER_BYTES,
    MAX_WITNESSES,
    Asking,
    Witness,
    Witnesses,
    parse_witnesses,
    read_witnesses,
)
from nectar_ledger.store.cosignatures import find_cosigned, read_cosignatures
from nectar_ledger.store.database import Database
from nectar_ledger.store.sequencer import Sequencer
from nectar_protocol.checkpoint import Checkpoint
from nectar_protocol.identity import Identity
from nectar_protocol.note import Kind, Note, NoteKey, cosign_text

from tests.ledger.ingest import IDENTITY, ORIGIN, open_signer
from tests.ledger.till import TABLES, Till, Total
from tests.ledger.watcher import Watcher, serve

LOG_KEY = NoteKey(ORIGIN, Kind.NOTE, IDENTITY.public)
# One engine is enough for what a witness does; both keep cosignatures.
on_sqlite = pytest.mark.parametrize("place", ["sqlite"], indirect=True)


@dataclass
class Ledger:
    """A log that grows when it is told to, and is signed then."""

    database: Database
    folder: Path

    @property
    def log(self) -> LogReader:
        return LogReader(self.database)

    def grow(self, count: int) -> Note:
        sequencer, start = Sequencer(self.database, TABLES, Till), self.log.size()
        sequencer.submit([Total(1, seq, seq) for seq in range(start + 1, start + count + 1)]).result(30)
        sequencer.close()
        return open_signer(self.database, self.folder).sign()

    def cosigned(self, note: Note) -> Note:
        """With the cosignatures that are kept."""
        with self.database.reading.begin() as connection:
            kept = read_cosignatures(connection, Checkpoint.parse(note.text).size)
        return Note(note.text, (*note.signatures, *kept))


@pytest.fixture
def ledger(database: Database, tmp_path: Path) -> Ledger:
    return Ledger(database, tmp_path)


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    watcher = Watcher("witness.example/one", LOG_KEY)
    with serve(watcher):
        yield watcher


@asynccontextmanager
async def asking(ledger: Ledger, watcher: Watcher) -> AsyncIterator[Asking]:
    async with httpx.AsyncClient() as client:
        yield Asking(Witness(watcher.key, watcher.url), ledger, client)


async def test_each_new_checkpoint_is_cosigned_and_the_line_is_kept(ledger: Ledger, watcher: Watcher) -> None:
    async with asking(ledger, watcher) as asked:
        for count in (3, 1, 300):
            note = ledger.grow(count)
            await asked.ask()
            await asked.ask()
            assert ledger.cosigned(note).verify([LOG_KEY, watcher.key])[watcher.key] is not None
    assert (watcher.size, watcher.root) == (304, ledger.log.root(304))
    assert len(watcher.asked) == 3


@on_sqlite
async def test_the_request_is_as_the_specification_has_it(ledger: Ledger, watcher: Watcher) -> None:
    async with asking(ledger, watcher) as asked:
        first = ledger.grow(2)
        await asked.ask()
        second = ledger.grow(3)
        await asked.ask()
    assert watcher.asked[0] == b"old 0\n\n" + first.pack()
    head, _, note = watcher.asked[1].partition(b"\n\n")
    assert head.splitlines()[0] == b"old 2"
    assert note == second.pack()


@on_sqlite
async def test_a_witness_that_knows_more_is_asked_again_from_there(ledger: Ledger, watcher: Watcher) -> None:
    async with asking(ledger, watcher) as asked:
        ledger.grow(5)
        await asked.ask()
    async with asking(ledger, watcher) as later:
        note = ledger.grow(4)
        await later.ask()
    assert [body.partition(b"\n")[0] for body in watcher.asked] == [b"old 0", b"old 0", b"old 5"]
    assert watcher.key in ledger.cosigned(note).verify([LOG_KEY, watcher.key])
    async with asking(ledger, watcher) as again:
        await again.ask()
    assert watcher.asked[-1].startswith(b"old 9\n\n")


@on_sqlite
async def test_a_witness_that_has_seen_a_larger_log_tells_of_a_fork(ledger: Ledger, watcher: Watcher) -> None:
    watcher.size = 100
    ledger.grow(5)
    async with asking(ledger, watcher) as asked:
        with pytest.raises(ForkError, match="over 100 entries"):
            await asked.ask()
        watcher.size = 0
        await asked.ask()
    assert watcher.size == 5


@on_sqlite
async def test_a_witness_that_has_seen_another_log_tells_of_a_fork(ledger: Ledger, watcher: Watcher) -> None:
    watcher.size, watcher.root = 5, bytes(32)
    async with asking(ledger, watcher) as asked:
        ledger.grow(5)
        with pytest.raises(ForkError, match="over 5 entries"):
            await asked.ask()
        note = ledger.grow(1)
        with pytest.raises(ForkError, match="does not continue"):
            await asked.ask()
    assert ledger.cosigned(note).signatures == note.signatures


def other_key(response: Response) -> Response:
    return Response(str(cosign_text("no checkpoint\n", "witness.example/one", Identity.from_seed(bytes(32)), 1)))


DISTORTIONS: dict[str, Callable[[Response], Response]] = {
    "answers 500": lambda response: Response(status_code=500),
    "answers 302": lambda response: Response(status_code=302, headers={"Location": "/elsewhere"}),
    "not a cosignature": lambda response: Response(b""),
    "is not a cosignature of its key": other_key,
    "not lines of signatures": lambda response: Response(b"more text\n\n" + response.body),
    "more than": lambda response: Response(bytes(MAX_ANSWER_BYTES + 1)),
    "does not say it": lambda response: Response("much\n", 409),
}


@on_sqlite
@pytest.mark.parametrize("reason", DISTORTIONS)
async def test_what_a_witness_must_not_answer_is_not_kept(ledger: Ledger, watcher: Watcher, reason: str) -> None:
    note = ledger.grow(5)
    watcher.distort = DISTORTIONS[reason]
    async with asking(ledger, watcher) as asked:
        with pytest.raises(WitnessError, match=reason):
            await asked.ask()
        assert ledger.cosigned(note).signatures == note.signatures
        watcher.distort = lambda response: response
        await asked.ask()
    assert watcher.key in ledger.cosigned(note).verify([LOG_KEY, watcher.key])


@on_sqlite
async def test_lines_of_other_keys_are_passed_over(ledger: Ledger, watcher: Watcher) -> None:
    stranger = Identity.from_seed(b"\1" * 32)

    def with_others(response: Response) -> Response:
        other = cosign_text("another text\n", "witness.example/two", stranger, 1)
        return Response(str(other).encode() + bytes(response.body))

    watcher.distort = with_others
    note = ledger.grow(5)
    async with asking(ledger, watcher) as asked:
        await asked.ask()
    assert [line.name for line in ledger.cosigned(note).signatures] == [ORIGIN, watcher.key.name]


@on_sqlite
async def test_a_witness_that_is_away_keeps_nobody_waiting(
    ledger: Ledger, watcher: Watcher, caplog: pytest.LogCaptureFixture
) -> None:
    away = Witness(
        NoteKey("witness.example/away", Kind.COSIGNATURE, Identity.generate().public), "http://127.0.0.1:9/w"
    )
    witnesses = Witnesses([away, Witness(watcher.key, watcher.url)], every_s=0.01)
    running = asyncio.create_task(witnesses.run(ledger))
    with caplog.at_level(logging.WARNING):
        for count in (2, 3):
            note = ledger.grow(count)
            while watcher.key not in ledger.cosigned(note).verify([LOG_KEY, watcher.key]):
                await asyncio.sleep(0.01)
    assert "witness.example/away" in caplog.text
    assert not running.done()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_the_newest_checkpoint_that_enough_have_cosigned_is_found(ledger: Ledger, watcher: Watcher) -> None:
    second = Watcher("witness.example/two", LOG_KEY)
    with serve(second):
        async with asking(ledger, watcher) as one, asking(ledger, second) as two:
            both = ledger.grow(2)
            await one.ask()
            await two.ask()
            single = ledger.grow(2)
            await one.ask()
    ledger.grow(2)
    with ledger.database.reading.begin() as connection:
        assert find_cosigned(connection, 1) == single
        assert find_cosigned(connection, 2) == both
        assert find_cosigned(connection, 3) is None


def line(name: str, url: str = "https://witness.example/w", kind: Kind = Kind.COSIGNATURE) -> str:
    return f"{NoteKey(name, kind, IDENTITY.public)} {url}"


def test_a_list_of_witnesses_is_a_key_and_a_url_a_line(tmp_path: Path) -> None:
    text = f"# friends\n\n{line('one.example')}\n  {line('two.example', 'http://127.0.0.1:80/x/')}  \n #{line('off')}\n"
    path = tmp_path / "witnesses"
    path.write_text(text)
    found = read_witnesses(path)
    assert [(witness.key.name, witness.url) for witness in found] == [
        ("one.example", "https://witness.example/w"), ("two.example", "http://127.0.0.1:80/x/"),
    ]  # fmt: skip
    assert read_witnesses(tmp_path / "none") == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nonsense https://witness.example", "line 1"),
        (f"\n{line('one.example')} more", "line 2 .* not a vkey and a URL"),
        (line("one.example", "witness.example"), "URL of a witness"),
        (line("one.example", "ftp://witness.example"), "URL of a witness"),
        (line("one.example", "https://witness.example/?a=b"), "URL of a witness"),
        (line("one.example", "https://[::1"), "URL of a witness"),
        (line("one.example", kind=Kind.NOTE), "kind 4"),
        (f"{line('one.example')}\n{line('one.example')}", "another name"),
        ("\n".join(line(f"{number}.example") for number in range(MAX_WITNESSES + 1)), "at most 32"),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused(text: str, reason: str) -> None:
    with pytest.raises(WitnessError, match=reason):
        parse_witnesses(text)


@pytest.mark.parametrize("content", [b"\xff", b"#" * 1_000_000])
def test_a_list_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "witnesses"
    path.write_bytes(content)
    with pytest.raises(WitnessError, match="the list of witnesses"):
        read_witnesses(path)
