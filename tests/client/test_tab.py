"""Honest bills are signed, whatever a session does and whoever is lost; every altered one is refused, at whose expense
the session can tell.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nectar_protocol.announcement import Profile
from nectar_protocol.commitment import Digests, StepKind
from nectar_protocol.hold import Hold, Line, sorted_lines
from nectar_protocol.receipt import Work
from nectar_protocol.record import sound
from nectar_protocol.tally import Tally
from nectar_swarm.bills import Bill, BilledStep

from tests.client.accounts import CAP, HOLD, Biller, Play

SEEDS = st.integers(0, 2**32)
Lie = Callable[[Biller, Bill], Bill]


@settings(max_examples=150, deadline=None)
@given(SEEDS, st.integers(1, 4), st.integers(5, 40))
def test_bills_of_honest_nodes_are_signed_whatever_happens(seed: int, hops: int, steps: int) -> None:
    play = Play(seed, hops=hops)
    for _ in range(steps):
        play.step()
    play.ask(1)
    play.flow()
    play.close()
    assert play.faults == []
    for node in play.nodes:
        assert node.line.final
        assert node.line.pending is None
        assert node.line.units == node.meter.units(node.tally.work)


@settings(max_examples=50, deadline=None)
@given(SEEDS)
def test_what_both_have_signed_lets_a_node_be_opened_again(seed: int) -> None:
    play = Play(seed, deadly=0)
    for _ in range(6):
        play.step()
    for node in play.nodes:
        play.bill(node)
    at = play.dice.randrange(3)
    before = play.nodes[at]
    if before.line.receipt is None:
        return
    play.replace(at)
    node = play.nodes[at]
    node.identity, node.terms = before.identity, before.terms
    node.tally = Tally.resume(before.terms, before.line.receipt.receipt, before.reserved)
    node.line.peer, node.line.tally, node.line.receipt = before.line.peer, node.tally, before.line.receipt
    units = before.line.units
    for _ in range(3):
        play.step()
    play.close()
    assert play.faults == []
    assert node.line.final
    assert node.line.units > units


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.booleans())
def test_an_opening_is_signed_by_itself_once_and_again_when_more_is_reserved(seed: int, more: bool) -> None:
    play = Play(seed, deadly=0)
    for node in play.nodes:
        play.bill(node)
    assert [node.line.units for node in play.nodes] == [node.meter.units(node.tally.work) for node in play.nodes]
    assert play.faults == []
    for _ in range(3):
        play.step()
    for node in play.nodes:
        play.bill(node)
    node = play.nodes[1]
    receipt = node.line.receipt
    assert receipt is not None
    reserved = receipt.receipt.work.reserved_tokens + more
    node.tally = node.line.tally = Tally.resume(node.terms, receipt.receipt, reserved)
    play.hear(play.tab.bill(node.line, node.sign(play.rows, (), node.tally)))
    assert [fault.reason for fault in play.faults] == ([] if more else ["bills nothing"])
    assert node.line.receipt.receipt.work.reserved_tokens == reserved


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(-2, 2).filter(bool))
def test_an_opening_that_reserves_something_else_is_refused(seed: int, by: int) -> None:
    play = Play(seed)
    node = play.nodes[0]
    work = Work(node.tally.work.reserved_tokens + by)
    bill = node.sign(play.rows, (), node.tally, work=work, units=node.meter.units(work))
    play.hear(play.tab.bill(node.line, bill))
    assert [fault.line for fault in play.faults] == [node.line]
    assert node.line.receipt is None


# Lies


def calm(seed: int, hops: int = 3) -> Play:
    """A session in which all goes well, so that nothing can be excused."""
    play = Play(seed, hops=hops, deadly=0)
    for _ in range(play.dice.randint(3, 8)):
        play.step()
    return play


def refused(play: Play, liar: Biller, lie: Lie) -> list[str]:
    """Who is blamed when one node's next bill is altered."""

    def spoil(node: Biller, bill: Bill) -> Bill:
        return lie(node, bill) if node is liar else bill

    play.spoil = spoil
    play.ask(3)
    play.flow()
    play.ask(1)
    play.flow()
    play.close()
    return [fault.line.peer for fault in play.faults]


RECEIPT_LIES = {
    "hold": b"x" * 32, "commitment": b"x" * 32, "session": b"x" * 32, "seq": 99,
    "start": 0, "stop": 99, "profile": Profile.NF4,
}  # fmt: skip


@pytest.mark.parametrize("name", RECEIPT_LIES)
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_a_receipt_with_another_field_is_refused(name: str, seed: int) -> None:
    play = calm(seed)
    liar = play.nodes[1]

    def lie(node: Biller, bill: Bill) -> Bill:
        receipt = replace(bill.receipt, **{name: RECEIPT_LIES[name]})
        return replace(bill, receipt=receipt, signature=receipt.sign(node.identity))

    assert refused(play, liar, lie)[:1] == [liar.line.peer]
    assert liar.receipts == (liar.line.receipt.receipt.seq if liar.line.receipt else 0)


@pytest.mark.parametrize("field", [*range(7), "units"])
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, by=st.sampled_from([-1, 1, 1000]))
def test_other_totals_are_refused(field: int | str, seed: int, by: int) -> None:
    play = calm(seed)
    liar = play.dice.choice(play.nodes)

    def lie(node: Biller, bill: Bill) -> Bill:
        if isinstance(field, str):
            changes = {"units": max(0, bill.receipt.units + by)}
        else:
            work = bill.receipt.work
            name = work._fields[field]
            changes = {"work": work._replace(**{name: getattr(work, name) + abs(by)})}
            if name.endswith("context"):
                tokens = name.replace("context", "tokens")
                changes["work"] = changes["work"]._replace(**{tokens: getattr(work, tokens) + 1})
        receipt = replace(bill.receipt, **changes)
        return replace(bill, receipt=receipt, signature=receipt.sign(node.identity))

    assert refused(play, liar, lie) == [liar.line.peer]


def forged(node: Biller, bill: Bill, change: Callable[[BilledStep], BilledStep]) -> Bill:
    """A bill with one step altered, and a receipt that fits it."""
    before = node.line.tally
    steps = list(bill.steps)
    steps[-1] = change(steps[-1])
    for step in steps:
        before = before.after(step.counted)
    receipt = before.receipt(node.meter, bill.receipt.final)
    return Bill(bill.rows, tuple(steps), receipt, receipt.sign(node.identity))


def other(digests: Digests) -> list[list[bytes]]:
    """The same with the last one altered."""
    rows = [list(row) for row in digests]
    rows[-1][-1] = bytes(32)
    return rows


STEP_LIES = {
    "number": lambda step: replace(step, first=step.first + 1, last=step.last + 1),
    "replay": lambda step: replace(step, first=step.first - 1),
    "position": lambda step: replace(step, header=replace(step.header, position=max(0, step.header.position - 1))),
    "kind": lambda step: replace(step, header=replace(step.header, kind=StepKind.BACKWARD)),
    "reorder": lambda step: replace(
        step, header=replace(step.header, reorder=tuple(reversed(range(len(step.inputs)))))
    ),
    "length": lambda step: longer(step),
}


def longer(step: BilledStep) -> BilledStep:
    return replace(
        step, inputs=[[*row, row[-1]] for row in step.inputs], outputs=[[*row, row[-1]] for row in step.outputs]
    )


@pytest.mark.parametrize("name", STEP_LIES)
@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_a_step_that_was_not_asked_is_refused_though_the_receipt_fits_it(name: str, seed: int) -> None:
    play = Play(seed, rows=2, deadly=0)
    for _ in range(5):
        play.step()
    liar = play.dice.choice(play.nodes)

    def lie(node: Biller, bill: Bill) -> Bill:
        return forged(node, bill, STEP_LIES[name]) if bill.steps else bill

    assert refused(play, liar, lie) == [liar.line.peer]


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, at=st.integers(0, 2), side=st.sampled_from(["inputs", "outputs"]))
def test_digests_that_neighbours_deny_are_laid_at_the_door_of_who_sent_them(seed: int, at: int, side: str) -> None:
    play = calm(seed)
    liar = play.nodes[at]

    def lie(node: Biller, bill: Bill) -> Bill:
        if not bill.steps:
            return bill
        return forged(node, bill, lambda step: replace(step, **{side: other(getattr(step, side))}))

    blamed = refused(play, liar, lie)
    # The session knows its own ends; between two nodes it believes neither, and lets the sender go first.
    culprit = play.nodes[at - 1] if side == "inputs" and at else liar
    assert blamed[:1] == [culprit.line.peer]
    assert not culprit.line.believed


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_a_bill_waits_until_the_predecessor_has_billed(seed: int) -> None:
    play = calm(seed)
    for node in play.nodes:
        play.bill(node)
    play.ask(2)
    play.flow()
    receipts = [node.receipts for node in play.nodes]
    for node in reversed(play.nodes[1:]):
        play.bill(node)
    assert [node.receipts for node in play.nodes] == receipts
    play.bill(play.nodes[0])
    assert [node.receipts for node in play.nodes] == [count + 1 for count in receipts]
    assert play.faults == []


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_who_is_gone_is_waited_for_no_longer(seed: int) -> None:
    play = calm(seed)
    for node in play.nodes:
        play.bill(node)
    play.ask(2)
    play.flow()
    play.bill(play.nodes[1])
    assert play.nodes[1].outstanding is not None
    play.replace(0)
    assert play.nodes[1].outstanding is None
    assert play.faults == []


def hold(caps: dict[Biller, int]) -> Hold:
    lines = sorted_lines(Line(node.identity.public, cap) for node, cap in caps.items())
    return sound(Hold, id=HOLD, lines=lines)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_units_over_the_cap_are_refused_and_without_a_line_a_bill_waits(seed: int) -> None:
    play = calm(seed)
    for node in play.nodes:
        play.bill(node)
    play.ask(2)
    play.flow()
    play.hear(play.tab.cap(hold({})))
    for node in play.nodes:
        play.bill(node)
    assert all(node.outstanding for node in play.nodes)
    first, second, third = play.nodes
    play.hear(play.tab.cap(hold({first: 1, second: CAP})))
    assert [fault.line for fault in play.faults] == [first.line]
    assert second.outstanding is None
    assert third.outstanding is not None


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_a_signature_of_somebody_else_is_refused(seed: int) -> None:
    play = calm(seed)
    liar = play.nodes[2]
    assert refused(play, liar, lambda node, bill: replace(bill, signature=bytes(64))) == [liar.line.peer]
