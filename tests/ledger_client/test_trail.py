"""Following a log: it only grows, entries stand where they are said to stand, and enough have seen it."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nectar_ledger_client.errors import FileError, NotYetError, UntrustedError
from nectar_ledger_client.trail import Trail
from nectar_protocol.checkpoint import Checkpoint, open_checkpoint
from nectar_protocol.note import Note
from nectar_protocol.receipt import SignedReceipt
from nectar_protocol.tiles import Tile

from tests.ledger.world import Book, World, person
from tests.ledger_client.paper import LOG, Desk, PaperLog, fillers, witness_key

NODE, SESSION, OWNER = person("node"), person("session"), person("owner")
FREE_MS = 600_000


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint"


class Ledgered:
    """A log with a hold's receipts in it."""

    def __init__(self, tokens: tuple[int, ...] = (3, 5)) -> None:
        world = World()
        book = Book(world)
        book.do(world.publish_model(), world.bind(NODE, OWNER))
        hold = book.open(world.open_hold(SESSION, SESSION, {NODE: 10**6}, book.now_ms + FREE_MS))
        self.receipts: list[SignedReceipt] = []
        self.indices: list[int] = []
        for seq, count in enumerate(tokens, 1):
            settle = world.receipt(hold, NODE, SESSION, seq, count)
            (answer,) = book.do(settle)
            assert answer.index is not None
            self.receipts.append(settle.receipt)
            self.indices.append(answer.index)
        self.other = world.receipt(hold, NODE, SESSION, len(tokens), tokens[-1] + 1).receipt
        self.entries = [draft.entry for draft in book.log]


def forks(kept: Path) -> list[Checkpoint]:
    aside = [kept.with_name(f"{kept.name}.fork-{role}") for role in ("kept", "served")]
    return [open_checkpoint(Note.unpack(path.read_bytes()), LOG).checkpoint for path in aside]


def test_the_newest_checkpoint_is_kept_and_found_again(kept: Path) -> None:
    desk = Desk(PaperLog().publish(fillers(5)))
    assert desk.run(Trail(LOG, kept).advance()).size == 5
    desk.log.publish(fillers(300))
    assert desk.run(Trail(LOG, kept).advance()).size == 305
    newest = Trail(LOG, kept).newest
    assert newest is not None
    assert newest.size == 305


def test_a_log_that_forgot_entries_is_not_followed_and_both_checkpoints_are_kept(kept: Path) -> None:
    desk = Desk(PaperLog().publish(fillers(5)))
    trail = Trail(LOG, kept)
    desk.run(trail.advance())
    desk.log = desk.log.fork(3)
    with pytest.raises(UntrustedError, match="Do not rely"):
        desk.run(trail.advance())
    assert [checkpoint.size for checkpoint in forks(kept)] == [5, 3]
    newest = Trail(LOG, kept).newest
    assert newest is not None
    assert newest.size == 5


@settings(max_examples=30)  # each writes files for good
@given(st.integers(1, 40), st.integers(0, 40), st.integers(0, 39))
def test_every_fork_is_noticed(tmp_path_factory: pytest.TempPathFactory, size: int, more: int, at: int) -> None:
    kept = tmp_path_factory.mktemp("trail") / "checkpoint"
    desk = Desk(PaperLog().publish(fillers(size)))
    trail = Trail(LOG, kept)
    desk.run(trail.advance())
    at = min(at, size - 1)
    desk.log = desk.log.fork(at, *fillers(size - at + more, ["forged"]))
    with pytest.raises(UntrustedError):
        desk.run(trail.advance())
    assert [checkpoint.size for checkpoint in forks(kept)] == [size, size + more]


def test_the_first_fork_that_was_seen_is_not_overwritten(kept: Path) -> None:
    desk = Desk(PaperLog().publish(fillers(5)))
    trail = Trail(LOG, kept)
    desk.run(trail.advance())
    first, second = desk.log.fork(2, b"one", b"two", b"three"), desk.log.fork(2, *fillers(9, ["other"]))
    for forked in (first, second):
        desk.log = forked
        with pytest.raises(UntrustedError):
            desk.run(trail.advance())
    assert [checkpoint.size for checkpoint in forks(kept)] == [5, 5]


def test_an_older_checkpoint_of_the_same_log_changes_nothing(kept: Path) -> None:
    desk = Desk(PaperLog().publish(fillers(9)))
    trail = Trail(LOG, kept)
    desk.run(trail.advance())
    desk.log.size = 4
    assert desk.run(trail.advance()).size == 9
    assert not list(kept.parent.glob("*.fork-*"))


def test_a_log_that_begins_empty_is_followed(kept: Path) -> None:
    desk = Desk(PaperLog())
    trail = Trail(LOG, kept)
    assert desk.run(trail.advance()).size == 0
    desk.log.publish(fillers(2))
    assert desk.run(trail.advance()).size == 2


def test_a_checkpoint_of_another_key_is_refused(kept: Path) -> None:
    desk = Desk(PaperLog(identity=person("somebody")).publish(fillers(2)))
    with pytest.raises(UntrustedError):
        desk.run(Trail(LOG, kept).advance())
    assert not kept.exists()


@pytest.mark.parametrize("content", [b"", b"nonsense\n", b"\xff" * 1000])
def test_a_damaged_file_stops_the_follower(kept: Path, content: bytes) -> None:
    kept.write_bytes(content)
    with pytest.raises(FileError, match="put it back"):
        Trail(LOG, kept)


def test_a_kept_checkpoint_of_another_log_stops_the_follower(kept: Path) -> None:
    kept.write_bytes(PaperLog(identity=person("somebody")).publish(fillers(2)).checkpoint().pack())
    with pytest.raises(UntrustedError):
        Trail(LOG, kept)


def test_two_flows_at_once_never_take_the_file_back(kept: Path) -> None:
    desk = Desk(PaperLog().publish(fillers(9)))
    trail = Trail(LOG, kept)
    desk.run(trail.advance())
    desk.log.publish(fillers(3, ["later"]))
    slow = trail.advance()
    first = next(slow)
    served = first.parse(desk.log.answer(first))
    second = slow.send(served)
    proof = second.parse(desk.log.answer(second))
    desk.log.publish(fillers(8, ["latest"]))
    assert desk.run(trail.advance()).size == 20
    third = slow.send(proof)
    assert third.params == {"old": "12", "new": "20"}
    with pytest.raises(StopIteration) as done:
        slow.send(third.parse(desk.log.answer(third)))
    assert done.value.value.size == 20
    newest = Trail(LOG, kept).newest
    assert newest is not None
    assert newest.size == 20


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 1000])
def test_every_entry_is_included_and_no_other(kept: Path, size: int) -> None:
    desk = Desk(PaperLog().publish(fillers(size)))
    trail = Trail(LOG, kept)
    for index in {0, size // 2, size - 1}:
        desk.run(trail.includes(index, desk.log.entries[index]))
        with pytest.raises(UntrustedError, match=f"entry {index}"):
            desk.run(trail.includes(index, b"forged"))


def test_an_entry_that_no_checkpoint_covers_yet_is_asked_for_later(kept: Path) -> None:
    desk = Desk(PaperLog().publish(fillers(5)))
    trail = Trail(LOG, kept)
    with pytest.raises(NotYetError):
        desk.run(trail.includes(5, b"later"))
    desk.log.publish([b"later"])
    desk.run(trail.includes(5, b"later"))


def test_neighbouring_entries_cost_no_further_calls(kept: Path) -> None:
    desk = Desk(PaperLog().publish(fillers(700)))
    trail = Trail(LOG, kept)
    desk.run(trail.includes(300, desk.log.entries[300]))
    asked = len(desk.asked)
    for index in range(256, 512):
        desk.run(trail.includes(index, desk.log.entries[index]))
    assert len(desk.asked) == asked


def test_a_wrong_tile_is_noticed_and_asked_for_anew(kept: Path) -> None:
    class Forged(PaperLog):
        forging = True

        def tile(self, tile: Tile) -> bytes:
            data = super().tile(tile)
            return bytes(len(data)) if self.forging else data

    log = Forged().publish(fillers(9))
    desk, trail = Desk(log), Trail(LOG, kept)
    with pytest.raises(UntrustedError):
        desk.run(trail.includes(3, log.entries[3]))
    Forged.forging = False
    desk.run(trail.includes(3, log.entries[3]))


def test_entries_wait_until_enough_witnesses_have_cosigned(kept: Path) -> None:
    keys = [witness_key(name) for name in ("ada", "bob", "eve")]
    desk = Desk(PaperLog().publish(fillers(3), "ada"))
    trail = Trail(LOG, kept, keys, quorum=2)
    with pytest.raises(NotYetError):
        desk.run(trail.includes(1, desk.log.entries[1]))
    desk.log.publish([], "ada", "eve")
    desk.run(trail.includes(1, desk.log.entries[1]))
    desk.log.publish(fillers(3))
    desk.run(trail.includes(1, desk.log.entries[1]))
    with pytest.raises(NotYetError):
        desk.run(trail.includes(4, desk.log.entries[4]))
    assert (trail.newest and trail.newest.size, trail.believed and trail.believed.size) == (6, 3)


def test_witnesses_who_are_not_known_do_not_count(kept: Path) -> None:
    desk = Desk(PaperLog().publish(fillers(3), "mallory", "oscar"))
    with pytest.raises(NotYetError):
        desk.run(Trail(LOG, kept, [witness_key("ada")], quorum=1).includes(1, desk.log.entries[1]))


@pytest.mark.parametrize("quorum", [-1, 2])
def test_a_quorum_that_nobody_can_reach_is_refused(kept: Path, quorum: int) -> None:
    with pytest.raises(ValueError, match="quorum"):
        Trail(LOG, kept, [witness_key("ada")], quorum)


def test_a_receipt_is_settled_once_its_entry_is_in_the_log(kept: Path) -> None:
    ledgered = Ledgered()
    desk, trail = Desk(PaperLog().publish(ledgered.entries)), Trail(LOG, kept)
    body = desk.run(trail.settled(ledgered.receipts[0], ledgered.indices[0]))
    assert body.receipt == ledgered.receipts[0]


def test_a_later_receipt_of_the_line_settles_an_earlier_one(kept: Path) -> None:
    ledgered = Ledgered()
    desk, trail = Desk(PaperLog().publish(ledgered.entries)), Trail(LOG, kept)
    assert desk.run(trail.settled(ledgered.receipts[0], ledgered.indices[1])).receipt == ledgered.receipts[1]


def test_an_earlier_receipt_of_the_line_does_not_settle_a_later_one(kept: Path) -> None:
    ledgered = Ledgered()
    desk, trail = Desk(PaperLog().publish(ledgered.entries)), Trail(LOG, kept)
    with pytest.raises(UntrustedError, match="older receipt"):
        desk.run(trail.settled(ledgered.receipts[1], ledgered.indices[0]))


def test_another_receipt_under_the_same_number_settles_nothing(kept: Path) -> None:
    ledgered = Ledgered()
    desk, trail = Desk(PaperLog().publish(ledgered.entries)), Trail(LOG, kept)
    with pytest.raises(UntrustedError, match="another receipt with seq 2"):
        desk.run(trail.settled(ledgered.other, ledgered.indices[1]))


def test_an_entry_of_another_kind_settles_nothing(kept: Path) -> None:
    ledgered = Ledgered()
    desk, trail = Desk(PaperLog().publish(ledgered.entries)), Trail(LOG, kept)
    with pytest.raises(UntrustedError, match="settles no receipt"):
        desk.run(trail.settled(ledgered.receipts[0], 0))


def test_a_later_receipt_that_its_sides_have_not_signed_settles_nothing(kept: Path) -> None:
    ledgered = Ledgered()
    entry = bytearray(ledgered.entries[ledgered.indices[1]])
    entry[-1] ^= 1
    desk, trail = Desk(PaperLog().publish([*ledgered.entries[:-1], bytes(entry)])), Trail(LOG, kept)
    with pytest.raises(UntrustedError, match="both signed"):
        desk.run(trail.settled(ledgered.receipts[0], len(ledgered.entries) - 1))


def test_a_checkpoint_that_cannot_be_kept_is_not_followed(kept: Path) -> None:
    desk = Desk(PaperLog().publish(fillers(5)))
    trail = Trail(LOG, kept.parent / "no folder" / "checkpoint")
    with pytest.raises(FileError, match="cannot write"):
        desk.run(trail.advance())
    assert trail.newest is None


def test_a_fork_is_told_even_where_nothing_can_be_kept(kept: Path) -> None:
    folder = kept.parent / "folder"
    folder.mkdir()
    desk = Desk(PaperLog().publish(fillers(5)))
    trail = Trail(LOG, folder / "checkpoint")
    desk.run(trail.advance())
    (folder / "checkpoint").unlink()
    folder.rmdir()
    desk.log = desk.log.fork(2, *fillers(9, ["forged"]))
    with pytest.raises(UntrustedError, match="one of them is lost"):
        desk.run(trail.advance())
