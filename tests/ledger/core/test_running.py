"""The short way of the usual settlement is the long way's, for what is right and for what is wrong."""

from collections.abc import Iterable
from random import Random

import pytest
from nectar_ledger.core import running
from nectar_ledger.core.ledger import Ledger
from nectar_ledger.core.machine import Draft
from nectar_ledger.core.state import State
from nectar_ledger.errors import InvariantError
from nectar_protocol.entry import SETTLE_SIZE, Kind

from tests.ledger.core.mirror import Mirror, picture
from tests.ledger.core.play import SMALL, Play, draw
from tests.ledger.core.stage import NODE, OTHER, SESSION, paid
from tests.ledger.world import Book, World

Replayed = tuple[dict[str, object], dict[str, object]]


def replayed(drafts: Iterable[Draft]) -> Replayed:
    """What the state and the tables are at the end, or at the first entry that is refused."""
    ledger, mirror = Ledger(State()), Mirror()
    try:
        for index, draft in enumerate(drafts):
            ledger.apply(index, draft.entry, draft.sealed)
    except InvariantError:
        return {"refused": index}, {}
    mirror.take(ledger)
    return picture(ledger.state), dict(mirror.tables)


def the_long_way(drafts: Iterable[Draft], monkeypatch: pytest.MonkeyPatch) -> Replayed:
    with monkeypatch.context() as patch:
        patch.setattr(running, "apply", lambda *arguments: False)
        return replayed(drafts)


@pytest.mark.parametrize("seed", range(3))
def test_a_log_is_the_same_either_way(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    world, random = World(SMALL), Random(seed)
    book, play, usual = Book(world), Play(world), []
    play.now_ms = book.now_ms
    for order in play.prologue():
        play.hear(order, book.submit(order))
    for _ in range(400):
        order = play.act(draw(random))
        book.now_ms = play.now_ms
        play.hear(order, book.submit(order))
    short_way = running.apply
    monkeypatch.setattr(running, "apply", lambda *arguments: usual.append(short_way(*arguments)) or usual[-1])
    assert replayed(book.log) == the_long_way(book.log, monkeypatch)
    assert usual.count(True) > 10, "the short way was not taken"


@pytest.mark.parametrize("bits", [0x01, 0x80, 0xFF])
def test_whatever_byte_of_a_settlement_is_changed_both_ways_say_the_same(
    book: Book, world: World, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = paid(book, both=True)
    receipts = [world.receipt(hold, node, SESSION, seq, 10 * seq) for seq in (1, 2) for node in (NODE, OTHER)]
    book.do(*receipts)
    *before, last = book.log
    assert last.entry[1] == Kind.SETTLE
    assert replayed(book.log) == the_long_way(book.log, monkeypatch)
    for place in range(SETTLE_SIZE):
        changed = bytearray(last.entry)
        changed[place] ^= bits
        drafts = [*before, Draft(bytes(changed))]
        assert replayed(drafts) == the_long_way(drafts, monkeypatch), f"byte {place}"


@pytest.mark.parametrize("bits", [0x01, 0x80, 0xFF])
def test_whatever_byte_of_a_lines_first_and_last_receipt_is_changed_both_ways_say_the_same(
    book: Book, world: World, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = paid(book, both=True)
    # The node's batch is open by another hold's receipt, so that the first one of this line is a usual one.
    book.do(world.receipt(paid(book), NODE, SESSION, 1, 10), world.receipt(hold, NODE, SESSION, 1, 10, final=True))
    *before, only = book.log
    for place in range(SETTLE_SIZE):
        changed = bytearray(only.entry)
        changed[place] ^= bits
        drafts = [*before, Draft(bytes(changed))]
        assert replayed(drafts) == the_long_way(drafts, monkeypatch), f"byte {place}"
