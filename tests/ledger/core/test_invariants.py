"""What holds after every entry of every log, whoever did what in whatever order."""

from collections import defaultdict
from collections.abc import Sequence
from functools import cache, lru_cache
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nectar_ledger.core.accounts import AccountKind
from nectar_ledger.core.ledger import Ledger
from nectar_ledger.core.machine import Draft
from nectar_ledger.core.orders import Order
from nectar_ledger.core.state import BURNED, EMISSION, POOL, State
from nectar_ledger.errors import InvariantError
from nectar_protocol.command import SignedCommand
from nectar_protocol.entries import HoldClosed, HoldOpened, Settled
from nectar_protocol.entry import HEADER, Kind, parse_entry
from nectar_protocol.errors import ProtocolError
from nectar_protocol.money import charge_ucr

from tests.ledger.core.mirror import Mirror, mirrored, picture
from tests.ledger.core.play import BY_KEY, SMALL, Numbers, Play, draw
from tests.ledger.world import Book, World, replay

hundred = st.integers(0, 99)
steps = st.lists(st.tuples(st.integers(0, 999), hundred, hundred, hundred), min_size=10, max_size=80)
few = settings(max_examples=20, deadline=None)


def run(numbers: Sequence[Numbers]) -> tuple[Book, list[tuple[int, Order]]]:
    """A ledger that everybody played with, and what they sent when."""
    world = World(SMALL)
    book, play, sent = Book(world), Play(world), []
    play.now_ms = book.now_ms
    orders = list(play.prologue())
    for order in orders:
        play.hear(order, book.submit(order))
        sent.append((book.now_ms, order))
    for step in numbers:
        play.batches = [(id, BY_KEY[batch.node.key]) for id, batch in book.state.batches.items()]
        order = play.act(step)
        book.now_ms = play.now_ms
        play.hear(order, book.submit(order))
        sent.append((book.now_ms, order))
    return book, sent


def check_state(state: State) -> None:
    """The sums that every state keeps."""
    balances = {id: account.balance_ucr for id, account in state.accounts.items()}
    assert sum(balances.values()) == 0
    assert all(balance >= 0 for id, balance in balances.items() if id != EMISSION)
    others = sum(balance for id, balance in balances.items() if id not in (EMISSION, BURNED))
    assert -balances[EMISSION] - balances[BURNED] == others
    assert balances[POOL] == sum(purse.balance_ucr for purse in state.purses.values())
    for live in state.holds.values():
        price, weight = live.policy.price, live.hold.weight
        left = sum(
            charge_ucr(line.cap_units, weight, price) - charge_ucr(line.units, weight, price)
            for line in live.lines.values()
            if not line.given_back
        )
        assert live.account.balance_ucr == left
        assert all(line.units <= line.cap_units for line in live.lines.values())
    open_kinds = {id for id, account in state.accounts.items() if account.kind is AccountKind.BATCH}
    assert open_kinds == set(state.batches)
    for purse in state.purses.values():
        assert purse.holds == sum(live.purse is purse for live in state.holds.values())


def check_tables(mirror: Mirror) -> None:
    """The rows among each other: transfers, volumes, lines and batches."""
    debits: dict[object, int] = defaultdict(int)
    credits: dict[object, int] = defaultdict(int)
    for _, debit, credit, amount, _, debit_after, credit_after in mirror.rows("transfers"):
        debits[debit] += amount
        credits[credit] += amount
        assert (debits[debit], credits[credit]) == (debit_after, credit_after)
    assert sum(debits.values()) == sum(credits.values())
    for id, _, _, floored, out, into, _, closed in mirror.rows("accounts"):
        assert (out, into) == (debits[id], credits[id])
        assert out <= into or not floored
        assert closed is None or out == into
    spent: dict[object, int] = defaultdict(int)
    units: dict[object, int] = defaultdict(int)
    for _, hold, node, batch, more, paid, fee in mirror.rows("settlements"):
        spent[hold, node] += paid + fee
        units[hold, node] += more
        units[batch] += more
    policies = {row[1]: row[3] for row in mirror.rows("policies")}
    holds = {row[0]: row for row in mirror.rows("holds")}
    for row in mirror.rows("hold_lines"):
        hold = holds[row[0]]
        assert units[row[:2]] == row[4] <= row[2]
        assert spent[row[:2]] == row[4] * hold[7] * _price(policies[hold[6]]) // 1_000_000
    assert all(units[row[0]] == row[5] >= row[6] for row in mirror.rows("batches"))
    purses: dict[object, int] = defaultdict(int)
    for account, _, amount, _, balance in mirror.rows("purse_lines"):
        purses[account] += amount
        assert purses[account] == balance >= 0
    assert all(row[2] - row[1] == purses[row[0]] for row in mirror.rows("purses"))


def _price(policy: bytes) -> int:
    """Behind the magic, the version and the swarm."""
    return int.from_bytes(policy[13:21], "big")


@few
@given(steps)
def test_sums_hold_after_every_entry(numbers: list[Numbers]) -> None:
    book, _ = run(numbers)
    ledger, mirror = Ledger(State()), Mirror()
    for index, draft in enumerate(book.log):
        ledger.apply(index, draft.entry, draft.sealed)
        check_state(ledger.state)
        mirror.take(ledger)
    check_tables(mirror)
    times = [parse_entry(draft.entry).time_ms for draft in book.log]
    assert all(a <= b for a, b in pairwise(times))


@few
@given(steps)
def test_a_replay_gives_the_rows_and_the_state_of_the_first_run(numbers: list[Numbers]) -> None:
    book, _ = run(numbers)
    first = Mirror()
    first.take(book.ledger)
    assert first.tables == mirrored(book.log).tables
    assert picture(replay(book.log).state) == picture(book.state)


@few
@given(steps)
def test_the_public_comes_to_the_same_balances(numbers: list[Numbers]) -> None:
    book, _ = run(numbers)
    private, public = mirrored(book.log), Mirror()
    public.take(replay(book.log, public=True))
    for name in ("accounts", "transfers", "settlements", "hold_lines", "nodes", "batches", "epochs", "outages", "keys"):
        assert public.tables[name] == private.tables[name], name
    paid_by = 2
    assert [(*row[:paid_by], *row[paid_by + 1 :]) for row in public.rows("holds")] == [
        (*row[:paid_by], *row[paid_by + 1 :]) for row in private.rows("holds")
    ]


@few
@given(steps, st.integers(0, 99))
def test_a_ledger_goes_on_from_its_tables_as_if_it_had_never_stopped(numbers: list[Numbers], percent: int) -> None:
    book, sent = run(numbers)
    world, stop = World(SMALL), len(sent) * percent // 100
    again, mirror = Book(world), Mirror()
    for number, (now_ms, order) in enumerate(sent):
        if number == stop:
            mirror.take(again.ledger)
            loaded = mirror.load(len(again.log), again.state.time_ms)
            assert picture(loaded) == picture(again.state)
            again.ledger = Ledger(loaded, world.keys.holds)
        again.now_ms = now_ms
        again.submit(order)
    assert again.log == book.log
    mirror.take(again.ledger)
    assert mirror.tables == mirrored(book.log).tables


def changed(draft: Draft, place: int, bit: int) -> Draft:
    entry = bytearray(draft.entry)
    entry[place % len(entry)] ^= 1 << bit
    return Draft(bytes(entry), draft.sealed)


def verify(entry: bytes, world: World) -> None:
    """Every signature that stands in it. Raises ProtocolError."""
    body = parse_entry(entry).body
    match body:
        case SignedCommand():
            body.verify()
        case Settled():
            body.receipt.verify()
        case HoldOpened():
            body.hold.verify(world.keys.holds.public)
        case HoldClosed() if body.asked is not None:
            body.asked.verify()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_an_entry_with_one_bit_wrong_is_refused(data: st.DataObject) -> None:
    index = data.draw(st.integers(1, len(life().log) - 1))
    draft = life().log[index]
    refuse_changed(index, data.draw(st.integers(0, len(draft.entry) - 1)), data.draw(st.integers(0, 7)))


@pytest.mark.slow
def test_an_entry_of_each_kind_with_any_byte_wrong_is_refused() -> None:
    newest = {type(body): index for index, body in enumerate(life().bodies()) if index}
    newest |= {
        type(body.command): index for index, body in enumerate(life().bodies()) if isinstance(body, SignedCommand)
    }
    for index in set(newest.values()):
        for place in range(len(life().log[index].entry)):
            refuse_changed(index, place, place % 8)


@lru_cache(maxsize=1)
def tables_before(index: int) -> Mirror:
    return mirrored(life().log[:index])


def refuse_changed(index: int, place: int, bit: int) -> None:
    """By the rules, or by a signature; only an entry's time is nobody's word but the ledger's."""
    draft, time_ms = changed(life().log[index], place, bit), parse_entry(life().log[index - 1].entry).time_ms
    ledger = Ledger(tables_before(index).load(index, time_ms))
    try:
        ledger.apply(index, draft.entry, draft.sealed)
    except InvariantError:
        return
    if 4 <= place < HEADER.size:
        return
    with pytest.raises(ProtocolError):
        verify(draft.entry, life().world)


@cache
def life() -> Book:
    """With every kind of entry."""
    random = Random(1)
    book, _ = run([draw(random) for _ in range(400)])
    return book


def test_the_long_life_has_every_kind_of_entry() -> None:
    assert {parse_entry(draft.entry).kind for draft in life().log} == set(Kind)
