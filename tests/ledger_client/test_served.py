"""Both clients against a ledger that is really served: what is sent arrives, what is read is what was recorded."""

from hashlib import sha256
from itertools import count
from pathlib import Path

import pytest
from nectar_ledger.core.orders import Tick
from nectar_ledger_client.answers import CommandAnswer, ReceiptAnswer, ReceiptStatus
from nectar_ledger_client.calls import MAX_RECEIPTS
from nectar_ledger_client.errors import RefusedError, UntrustedError
from nectar_protocol.announcement import Announcement, NodeState, Profile
from nectar_protocol.commands import KeyPurpose, Outcome
from nectar_protocol.entries import VerdictSealed
from nectar_protocol.entry import seal
from nectar_protocol.hold import Hold
from nectar_protocol.identity import Identity
from nectar_protocol.receipt import SignedReceipt

from tests.ledger.api.served import ALICE, LIFE_MS, NODE, OWNER, Served, serve, usual
from tests.ledger.world import HOUR_MS, World, person
from tests.ledger_client.asking import Asker
from tests.ledger_client.history import PROBED

CAP = 1_000_000
names = count()


@pytest.fixture
def session() -> Identity:
    """One that nobody has seen."""
    return person(f"session {next(names)}")


def open_hold(served: Served, ledger: Asker, session: Identity, payer: Identity = ALICE, cap: int = CAP) -> Hold:
    order = served.world.open_hold(payer, session, {NODE: cap}, served.clock() + LIFE_MS)
    hold: Hold = ledger.send_command(order.signed).hold.hold
    return hold


def receipts_of(served: Served, hold: Hold, session: Identity, *tokens: int) -> list[SignedReceipt]:
    numbered = enumerate(tokens, 1)
    return [served.world.receipt(hold, NODE, session, seq, done).receipt for seq, done in numbered]


def test_a_ledger_says_what_it_is(served: Served, ledger: Asker) -> None:
    info = ledger.ledger()
    assert (info.ledger, info.network) == (served.world.ledger, served.world.genesis.network)
    assert info.holds_key == served.world.keys.holds.public
    assert info.log_key.public == served.world.keys.log.public
    assert info.policy == served.world.policy.id
    assert ledger.known().log == info.log_key


def test_another_ledger_at_the_address_is_not_believed(served: Served, ledger: Asker) -> None:
    asker = type(ledger)(served.url, bytes(32))
    with pytest.raises(UntrustedError, match="check the address"):
        asker.known()
    asker.end()


def test_a_hold_is_opened_extended_and_closed(served: Served, ledger: Asker, session: Identity) -> None:
    world = served.world
    order = world.open_hold(ALICE, session, {NODE: CAP}, served.clock() + LIFE_MS)
    answer = ledger.send_command(order.signed)
    assert ledger.send_command(order.signed) == answer
    extension = world.extend(ALICE, answer.hold.hold, {NODE: 2 * CAP}, answer.hold.hold.expires_ms)
    extended = ledger.send_command(extension.signed, extends=answer.hold.hold).hold.hold
    assert (extended.revision, extended.lines[0].cap_units) == (2, 2 * CAP)
    view = ledger.hold(extended.id)
    assert (view.session, view.weight, view.state, view.revision) == (session.public, 1, "open", 2)
    assert view.profiles == frozenset(Profile)
    assert ledger.send_command(world.close(session, extended).signed) == CommandAnswer(None, None)


def test_a_refusal_says_why(served: Served, ledger: Asker, session: Identity) -> None:
    poor = person("poor")
    order = served.world.open_hold(poor, session, {NODE: CAP}, served.clock() + LIFE_MS)
    with pytest.raises(RefusedError) as refused:
        ledger.send_command(order.signed)
    assert (refused.value.code, refused.value.status) == ("insufficient-funds", 402)


def test_receipts_settle_and_are_superseded(served: Served, ledger: Asker, session: Identity) -> None:
    hold = open_hold(served, ledger, session)
    older, newer = receipts_of(served, hold, session, 5, 9)
    first, second = ledger.send_receipts(NODE, [older, newer])
    assert (first.status, second.status) == (ReceiptStatus.SUPERSEDED, ReceiptStatus.SETTLED)
    assert ledger.send_receipts(session, [newer]) == [ReceiptAnswer(ReceiptStatus.SUPERSEDED)]
    (line,) = ledger.hold(hold.id).lines
    assert (line.node, line.seq, line.receipt, line.receipt_index) == (NODE.public, 2, newer, second.index)
    assert ledger.entry(second.index).entry.body.receipt == newer
    (settlement,) = ledger.settlements_of_hold(hold.id)
    assert (settlement.index, settlement.hold, settlement.units) == (second.index, hold.id, newer.receipt.units)


def test_a_receipt_of_somebody_else_is_refused_alone(served: Served, ledger: Asker, session: Identity) -> None:
    hold = open_hold(served, ledger, session)
    (receipt,) = receipts_of(served, hold, session, 5)
    (answer,) = ledger.send_receipts(person("stranger"), [receipt])
    assert (answer.status, answer.code) == (ReceiptStatus.REFUSED, "not-authorized")


def test_more_receipts_than_one_call_takes_are_answered_in_order(
    served: Served, ledger: Asker, session: Identity
) -> None:
    hold = open_hold(served, ledger, session)
    first, last = receipts_of(served, hold, session, 1, 2)
    answers = ledger.send_receipts(NODE, [first] * (MAX_RECEIPTS + 1) + [last])
    assert len(answers) == MAX_RECEIPTS + 2
    assert answers[-1].status is ReceiptStatus.SETTLED
    assert ledger.send_receipts(NODE, []) == []


def test_balances_and_statements(served: Served, ledger: Asker) -> None:
    balance, purse = ledger.balance(ALICE.public), ledger.purse(ALICE)
    assert balance.balance_ucr == balance.credits_ucr - balance.debits_ucr
    lines = ledger.statement(ALICE.public)
    assert lines[0].balance_ucr == balance.balance_ucr
    assert [line.code for line in lines][-2:] == ["fund", "grant"]
    assert lines[-1].amount_ucr == lines[-1].balance_ucr > 0 > lines[-2].amount_ucr
    assert (lines[-1].other.kind, lines[-1].other.key) == ("emission", None)
    assert ledger.statement(ALICE.public, after=lines[-1].id) == lines[-2::-1]
    assert ledger.purse_statement(ALICE)[0].balance_ucr == purse.balance_ucr


def test_a_purse_is_shown_to_its_owner_alone(served: Served, ledger: Asker, session: Identity) -> None:
    hold = open_hold(served, ledger, session)
    assert hold.id in [view.id for view in ledger.holds_of(ALICE)]
    stranger = person("stranger")
    for read in (ledger.purse, ledger.purse_statement, ledger.holds_of):
        with pytest.raises(RefusedError, match="account"):
            read(stranger)


def test_lists_go_on_over_pages(served: Served, ledger: Asker) -> None:
    rich = person(f"rich {next(names)}")
    served.record(served.world.grant(rich, 10**9), *(served.world.fund(rich, 1000) for _ in range(450)))
    lines = ledger.statement(rich.public)
    assert len(lines) == 451
    assert [line.balance_ucr for line in lines] == [10**9 - 1000 * moved for moved in range(450, -1, -1)]
    assert ledger.statement(rich.public, after=0) == lines[::-1]


def test_nodes_and_their_batches(served: Served, ledger: Asker, session: Identity) -> None:
    hold = open_hold(served, ledger, session)
    ledger.send_receipts(NODE, receipts_of(served, hold, session, 5))
    node = ledger.node(NODE.public)
    assert node.payee == OWNER.public
    assert [node] == ledger.nodes_of(OWNER.public) == [one for one in ledger.nodes() if one.node == NODE.public]
    batch = ledger.batches_of(NODE.public)[0]
    assert (batch.node, batch.state, batch.model) == (NODE.public, "open", served.world.model.model)
    judged = ledger.batch(batch.id)
    assert (judged.batch, judged.verdicts) == (batch, None)
    assert sum(one.paid_ucr for one in ledger.settlements(batch.id)) == batch.earned_ucr == node.pending_ucr


def test_policy_and_models(served: Served, ledger: Asker) -> None:
    world = served.world
    assert ledger.policy() == ledger.policy(world.policy.id) == world.policy
    assert ledger.policies() == [world.policy]
    assert ledger.models() == [world.model]
    assert ledger.model(world.model.model) == ledger.model(world.model.model, 1) == world.model
    with pytest.raises(RefusedError, match="not-found"):
        ledger.model(bytes(32))


def test_the_supply_adds_up(served: Served, ledger: Asker) -> None:
    now = ledger.supply()
    assert now.supply.emitted_ucr > 0
    assert now.granted_ucr <= now.supply.emitted_ucr
    assert ledger.epochs() == []


def test_heartbeats_make_the_directory(served: Served, ledger: Asker) -> None:
    model, now_ms = sha256(f"model {next(names)}".encode()).digest(), served.clock()
    nodes = [person(f"serving {number}") for number in range(3)]
    announced = [
        Announcement(
            node.public, model, now_ms, now_ms + 60_000, 0, 4, Profile.F32, NodeState.SERVING, 5, 1, ()
        ).signed(node)
        for node in nodes
    ]  # fmt: skip
    for announcement in announced:
        ledger.heartbeat(announcement)
    assert ledger.directory(model) == sorted(announced, key=lambda announcement: announcement.node)
    assert ledger.directory(bytes(32)) == []


def test_evidence_is_kept_for_auditors(served: Served, ledger: Asker) -> None:
    auditor, evidence = person("auditor"), f"evidence {next(names)}".encode() * 10_000
    served.record(served.world.set_key(auditor, KeyPurpose.AUDITOR))
    kept = ledger.put_evidence(auditor, evidence)
    assert ledger.evidence(kept) == evidence
    with pytest.raises(RefusedError, match="not-authorized"):
        ledger.put_evidence(ALICE, b"evidence")


def test_events_come_as_entries_are_committed_and_go_on_behind_the_last(served: Served, ledger: Asker) -> None:
    (begin,) = served.record(served.world.fund(ALICE, 1000))
    served.record(*(served.world.fund(ALICE, 1000) for _ in range(3)))
    events = ledger.events(3, after=begin.index)
    assert [event.index - begin.index for event in events] == [1, 2, 3]
    assert {event.kind for event in events} == {"purse"}
    assert events[0].data["account"] == ALICE.public.hex()


def test_the_log_is_followed_and_settles_receipts(
    served: Served, ledger: Asker, session: Identity, tmp_path: Path
) -> None:
    hold = open_hold(served, ledger, session)
    (receipt,) = receipts_of(served, hold, session, 5)
    (answer,) = ledger.send_receipts(NODE, [receipt])
    follower = ledger.follow(ledger.known().log, tmp_path / "checkpoint")
    served.service.signer.sign()
    assert follower.advance().size > answer.index
    assert follower.settled(receipt, answer.index).receipt == receipt
    follower.includes(0, ledger.entry(0).data)
    with pytest.raises(UntrustedError):
        follower.includes(0, ledger.entry(1).data)


def test_a_closed_batch_shows_its_verdicts_and_an_epoch_its_books(tmp_path: Path) -> None:
    world, auditor, session = World(PROBED), person("auditor"), person("session")
    orders = [*usual(world), world.set_key(auditor, KeyPurpose.AUDITOR)]
    served, stop = serve(tmp_path, world, orders=orders)
    ledger = Asker(served.url, clock_s=lambda: served.clock() / 1000)
    try:
        hold = open_hold(served, ledger, session)
        ledger.send_receipts(NODE, receipts_of(served, hold, session, 5))
        batch = ledger.batches_of(NODE.public)[0]
        verdict = world.verdict(auditor, NODE, batch.id, hold, Outcome.PASSED).signed
        index = ledger.send_command(verdict).index
        served.clock.now_ms += HOUR_MS
        while (judged := ledger.batch(batch.id)).verdicts is None:
            served.record(Tick())
        (given,) = judged.verdicts
        assert (given.index, given.signed, judged.batch.state) == (index, verdict, "released")
        assert ledger.entry(index).entry.body == VerdictSealed(seal(given.sealed))
        (epoch,) = ledger.epochs()
        assert (epoch.number, epoch.supply.emitted_ucr) == (1, ledger.supply().supply.emitted_ucr)
    finally:
        ledger.end()
        stop()
