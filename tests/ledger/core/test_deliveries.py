"""However receipts are cut, ordered, doubled and lost on their way, the same is paid in the end."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from nectar_ledger.core.state import BURNED, POOL

from tests.ledger.core.stage import ALICE, CAP, LIFE_MS, NODE, OTHER, PURSE_UCR, SESSION, stock
from tests.ledger.world import POLICY, Book, World, person, replay

few = settings(max_examples=20, deadline=None)


@few
@given(st.data())
def test_no_order_number_or_loss_of_deliveries_changes_the_end(data: st.DataObject) -> None:
    """As long as the newest receipt of each line comes at last."""
    world = World()
    sessions = [person("first"), person("second")]
    calm = stock(Book(world))
    receipts, newest = [], []
    for session in sessions:
        hold = calm.open(world.open_hold(ALICE, session, {NODE: CAP, OTHER: CAP}, calm.now_ms + LIFE_MS))
        for node in (NODE, OTHER):
            totals = sorted(data.draw(st.lists(st.integers(0, 1_000), min_size=1, max_size=5)))
            line = [world.receipt(hold, node, session, seq, tokens) for seq, tokens in enumerate(totals, 1)]
            receipts += line
            newest.append(line[-1])
    storm = replay_book(calm)
    calm.do(*receipts)
    lost = data.draw(st.sets(st.integers(0, len(receipts) - 1)))
    arriving = [receipt for n, receipt in enumerate(receipts) if n not in lost] + newest
    storm.do(*data.draw(st.permutations(arriving * data.draw(st.integers(1, 3)))))
    assert ends(storm) == ends(calm)


def replay_book(book: Book) -> Book:
    """The same ledger once more."""
    copy = Book(book.world)
    copy.ledger, copy.log, copy.now_ms = replay(book.log), list(book.log), book.now_ms
    return copy


def ends(book: Book) -> object:
    """What the parties see; numbers of batches may differ."""
    state = book.state
    lines = {
        (hold, node): (line.seq, line.units) for hold, live in state.holds.items() for node, line in live.lines.items()
    }
    return (
        lines,
        book.pending_ucr(NODE),
        book.pending_ucr(OTHER),
        state.accounts[BURNED].balance_ucr,
        state.accounts[POOL].balance_ucr,
    )


@few
@given(st.lists(st.integers(0, 1_300), min_size=1, max_size=12), st.integers(1, 2_000_000), st.integers(0, 10**6))
def test_a_line_is_paid_for_its_last_total_however_it_was_cut(totals: list[int], price: int, fee_ppm: int) -> None:
    world = World(replace(POLICY, price=price, fee_ppm=fee_ppm))
    book = stock(Book(world))
    hold = book.open(world.open_hold(ALICE, SESSION, {NODE: CAP}, book.now_ms + LIFE_MS))
    for seq, tokens in enumerate(sorted(totals), 1):
        book.do(world.receipt(hold, NODE, SESSION, seq, tokens))
    units = book.state.holds[hold.id].lines[NODE.public].units
    total = units * price // 1_000_000
    assert book.pending_ucr(NODE) == total * (1_000_000 - fee_ppm) // 1_000_000
    assert book.state.accounts[BURNED].balance_ucr == total - book.pending_ucr(NODE)
    assert book.purse_ucr(ALICE) == PURSE_UCR - CAP * price // 1_000_000
