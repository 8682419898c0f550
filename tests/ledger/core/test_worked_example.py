"""The example that the notes on the ledger begin with, number for number."""

from dataclasses import replace
from itertools import pairwise

from nectar_ledger.core.accounts import Code
from nectar_ledger.core.state import BURNED, EMISSION, POOL
from nectar_protocol.entries import (
    BatchClosed,
    BatchOutcome,
    CloseReason,
    EmissionTo,
    Emitted,
    EpochClosed,
    HoldClosed,
    HoldOpened,
    Settled,
    Share,
)
from nectar_protocol.modelentry import AuditState, BlockCost, ModelEntry
from nectar_protocol.policy import EXAMPLE

from tests.ledger.core.mirror import mirrored
from tests.ledger.core.stage import LIFE_MS
from tests.ledger.world import HOUR_MS, Book, World, person

NODE, OWNER, SESSION, STRANGER = person("N"), person("A"), person("session"), person("stranger")
# One block, in which a decoded token is a million units wherever it stands.
MODEL = ModelEntry(bytes(32), 1, AuditState.ENFORCED, (BlockCost(250_000_000_000, 0),))
POLICY = replace(EXAMPLE, free_cap_units=40_000_000)


def test_the_worked_example() -> None:
    world = World(POLICY, MODEL)
    book = Book(world)
    book.do(world.publish_model(), world.bind(NODE, OWNER))
    for epoch in range(1, 7):
        assert [type(body) for body in book.tick(HOUR_MS)] == [EpochClosed], epoch

    gift = book.open(world.open_hold(STRANGER, STRANGER, {NODE: 40_000_000}, book.now_ms + LIFE_MS))
    book.do(world.receipt(gift, NODE, STRANGER, 1, 40, final=True))
    emitted, closed = book.tick(HOUR_MS)
    assert emitted == Emitted(7, EmissionTo.PAYEES, (Share(NODE.public, OWNER.public, 40_000_000, 40_000_000),))
    assert isinstance(closed, EpochClosed)
    assert (closed.number, closed.free_units, closed.emitted_ucr, closed.wallets_ucr) == (
        7,
        40_000_000,
        40_000_000,
        40_000_000,
    )
    (free_batch,) = book.tick()
    assert isinstance(free_batch, BatchClosed)
    assert (free_batch.outcome, free_batch.amount_ucr) == (BatchOutcome.RELEASED, 0)

    begin = len(book.log)
    book.do(world.fund(OWNER, 10_000_000))
    hold = book.open(world.open_hold(OWNER, SESSION, {NODE: 6_100_000}, book.now_ms + LIFE_MS))
    account = book.state.holds[hold.id].account.id
    book.do(world.receipt(hold, NODE, SESSION, 1, 4), world.receipt(hold, NODE, SESSION, 2, 5, final=True))
    batch = account + 1
    released, last = [book.tick(HOUR_MS), book.tick()]
    _, opened, running, final, returned, books, _ = book.bodies()[begin:]
    assert isinstance(opened, HoldOpened)
    assert isinstance(running, Settled)
    assert running[:4] == (account, batch, 3_920_000, 80_000)
    assert isinstance(final, Settled)
    assert final[:4] == (account, batch, 980_000, 20_000)
    assert returned == HoldClosed(hold.id, account, 1_100_000, CloseReason.FINAL, True)
    assert released == [books]
    assert last == [BatchClosed(batch, BatchOutcome.RELEASED, 4_900_000)]
    assert isinstance(books, EpochClosed)
    supply_ucr = books.emitted_ucr - books.burned_ucr
    assert supply_ucr == books.wallets_ucr + books.pool_ucr + books.holds_ucr + books.batches_ucr == 39_900_000
    assert (books.wallets_ucr, books.pool_ucr, books.holds_ucr, books.batches_ucr) == (
        30_000_000,
        5_000_000,
        0,
        4_900_000,
    )

    owner, transfers = book.state.wallets[OWNER.public].id, mirrored(book.log).rows("transfers")
    assert [row[1:5] for row in transfers] == [
        (EMISSION, owner, 40_000_000, Code.EMIT),
        (owner, POOL, 10_000_000, Code.FUND),
        (POOL, account, 6_100_000, Code.ESCROW),
        (account, batch, 3_920_000, Code.PAY),
        (account, BURNED, 80_000, Code.FEE),
        (account, batch, 980_000, Code.PAY),
        (account, BURNED, 20_000, Code.FEE),
        (account, POOL, 1_100_000, Code.RETURN),
        (batch, owner, 4_900_000, Code.RELEASE),
    ]
    assert all(a[0] < b[0] for a, b in pairwise(transfers))
    assert (book.balance_ucr(OWNER), book.purse_ucr(OWNER)) == (34_900_000, 5_000_000)
