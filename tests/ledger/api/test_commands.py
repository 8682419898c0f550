"""Commands over HTTP: each kind obeyed, each refusal with its status, nothing twice."""

from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nectar_ledger.api.errors import STATUS
from nectar_ledger.core.holding import MAX_OPEN_HOLDS
from nectar_ledger.core.orders import Obey
from nectar_ledger.core.reasons import Reason
from nectar_protocol.commands import (
    KINDS,
    BindPayee,
    CloseHold,
    FundPurse,
    Grant,
    KeyPurpose,
    KeyState,
    OpenHold,
    Outcome,
    SetKey,
    parse_command,
)
from nectar_protocol.entries import MAX_VERDICTS
from nectar_protocol.hold import Hold, SignedHold
from nectar_protocol.identity import Identity, PublicKey
from nectar_protocol.modelentry import ModelEntry
from nectar_protocol.policy import Policy

from tests.ledger.api.conftest import Serve
from tests.ledger.api.served import ALICE, LIFE_MS, NODE, OWNER, Served, usual
from tests.ledger.world import FAR_MS, MODEL, POLICY, World, person

AUDITOR = person("auditor")


def refusal(served: Served, order: Obey) -> str:
    """The code with which a command is refused; its status is that of the table, and it is said in words."""
    answer = served.command(order)
    body = answer.json()
    assert set(body) == {"error", "message"}
    assert answer.status_code == STATUS[Reason(body["error"])]
    assert len(body["message"]) > 10
    return str(body["error"])


def test_every_kind_of_command_is_obeyed(serve: Serve) -> None:
    world = World()
    served = serve(world, orders=[])
    session, payee, node = person("session"), person("payee"), NODE
    indexes = []

    def obeyed(order: Obey) -> SignedHold | None:
        answer = served.command(order)
        assert answer.status_code == 200, answer.text
        indexes.append(answer.json()["index"])
        hold = answer.json()["hold"]
        return hold and SignedHold.unpack(b64decode(hold))

    for order in usual(world):
        assert obeyed(order) is None
    promised = obeyed(world.open_hold(ALICE, session, {node: 10**6}, served.clock() + LIFE_MS))
    assert promised is not None
    promised.verify(world.keys.holds.public)
    extended = obeyed(world.extend(ALICE, promised.hold, {node: 2 * 10**6}, served.clock() + LIFE_MS))
    assert extended is not None
    assert extended.hold.revision == 2
    hold = extended.hold
    settled = served.receipts(node, world.receipt(hold, node, session, 1, 5, final=True))[0]
    assert settled["status"] == "settled"
    batch = served.service.state.nodes[node.public].batches[MODEL.model].account.id
    other = served.hold(session, {node: 10**6}, ALICE)
    for order in (
        world.close(session, other),
        world.withdraw(ALICE, 1_000),
        world.change_payee(node, OWNER, payee),
        world.set_key(AUDITOR, KeyPurpose.AUDITOR),
        world.verdict(AUDITOR, node, batch, hold, Outcome.PASSED),
        world.dispute(session, hold, node),
        world.publish_policy(replace(POLICY, version=2)),
        world.publish_model(replace(MODEL, version=2)),
    ):
        assert obeyed(order) is None
    known = [index for index in indexes if index is not None]
    assert known == sorted(set(known))


def test_what_changes_nothing_has_no_entry(served: Served) -> None:
    session = person("idle session")
    hold = served.hold(session)
    answer = served.command(served.world.close(session, hold))
    assert (answer.status_code, answer.json()) == (200, {"index": None, "hold": None})


def test_the_same_command_has_the_same_answer_and_another_body_under_its_id_is_a_conflict(served: Served) -> None:
    session = person("repeated session")
    order = served.world.open_hold(session, session, {NODE: 1_000}, served.clock() + LIFE_MS)
    first, again = served.command(order), served.command(order)
    assert first.status_code == 200
    assert again.json() == first.json()
    other = replace(order.signed.command, hold_expires_ms=served.clock() + 1).signed(session)
    assert refusal(served, replace(order, signed=other)) == "conflict"


def test_a_command_that_was_obeyed_in_time_has_its_answer_when_it_has_expired(serve: Serve) -> None:
    served = serve()
    order = served.world.obey(
        FundPurse, ALICE, account=ALICE.public, amount_ucr=1_000, expires_ms=served.clock() + 1_000
    )
    first = served.command(order)
    served.clock.now_ms += 2_000
    assert served.command(order).json() == first.json()
    late = served.world.obey(
        FundPurse, ALICE, account=ALICE.public, amount_ucr=1_000, expires_ms=served.clock() - 1_000
    )
    assert refusal(served, late) == "command-expired"
    other = replace(order.signed.command, amount_ucr=2_000).signed(ALICE)
    assert refusal(served, replace(order, signed=other)) == "command-expired"


def refused_commands(world: World, now_ms: int) -> dict[Reason, Callable[[], Obey]]:
    """One command for each reason, in a world of its own."""
    stranger, session = person("stranger"), person("session")
    expires_ms = now_ms + LIFE_MS

    def opening(caps: dict[Identity, int] | None = None, payer: Identity = ALICE, **changes: object) -> Obey:
        order = world.open_hold(payer, session, caps or {NODE: 1_000}, expires_ms)
        return replace(order, signed=replace(order.signed.command, **changes).signed(payer))

    paid_policy = replace(POLICY, hold_least_ucr=1_000)
    return {
        Reason.FOREIGN_LEDGER: lambda: opening(ledger=bytes(32)),
        Reason.COMMAND_EXPIRED: lambda: opening(expires_ms=now_ms - 1),
        Reason.NOT_AUTHORIZED: lambda: world.obey(
            Grant, stranger, operator=stranger.public, account=ALICE.public, amount_ucr=1
        ),
        Reason.UNKNOWN_POLICY: lambda: opening(policy=paid_policy.id),
        Reason.UNKNOWN_MODEL: lambda: opening(model=bytes(32)),
        Reason.UNKNOWN_NODE: lambda: opening({stranger: 1_000}),
        Reason.UNKNOWN_HOLD: lambda: world.obey(CloseHold, session, session=session.public, hold=bytes(32)),
        Reason.WRONG_VERSION: lambda: world.publish_model(replace(MODEL, version=7)),
        Reason.WRONG_EXPIRY: lambda: opening(hold_expires_ms=now_ms + POLICY.hold_life_ms + 1),
        Reason.WRONG_AMOUNT: lambda: world.fund(ALICE, 1),
        Reason.WRONG_CAP: lambda: world.open_hold(session, session, {NODE: POLICY.free_cap_units + 1}, expires_ms),
        Reason.INSUFFICIENT_FUNDS: lambda: world.fund(stranger, 1_000),
        Reason.ALREADY_BOUND: lambda: world.bind(NODE, stranger),
        Reason.UNKNOWN_BATCH: lambda: world.verdict(AUDITOR, NODE, 9, world_hold(world), Outcome.PASSED),
    }


def world_hold(world: World) -> Hold:
    """One that was never opened."""
    command = world.open_hold(ALICE, person("any"), {NODE: 1}, FAR_MS).signed.command
    assert isinstance(command, OpenHold)
    return command.hold()


@pytest.mark.parametrize("reason", list(refused_commands(World(), 0)))
def test_a_refusal_says_why_and_records_nothing(served: Served, reason: Reason) -> None:
    if reason is Reason.UNKNOWN_BATCH:
        served.command(served.world.set_key(AUDITOR, KeyPurpose.AUDITOR))
    before = served.service.durable_size
    assert refusal(served, refused_commands(served.world, served.clock())[reason]()) == reason
    assert served.service.durable_size == before


def test_a_revision_that_takes_back_is_refused(served: Served) -> None:
    hold = served.hold(person("extending session"))
    session = person("extending session")
    order = served.world.extend(session, hold, {NODE: 1}, served.clock() + LIFE_MS)
    assert refusal(served, order) == "wrong-revision"


def test_an_expired_hold_is_not_extended(serve: Serve) -> None:
    served = serve()
    session = person("late session")
    hold = served.hold(session)
    served.clock.now_ms = hold.expires_ms + 1
    order = served.world.extend(session, hold, {NODE: POLICY.free_cap_units}, served.clock() + LIFE_MS)
    assert refusal(served, order) == "hold-expired"


def test_a_purse_has_a_bounded_number_of_holds(serve: Serve) -> None:
    served = serve()
    served.hold(person("first session"), {NODE: 1}, ALICE)
    state = served.service.state
    state.purses[state.wallets[ALICE.public].id].holds = MAX_OPEN_HOLDS
    order = served.world.open_hold(ALICE, person("one more session"), {NODE: 1}, served.clock() + LIFE_MS)
    assert refusal(served, order) == "too-many-holds"


def test_a_batch_has_a_bounded_number_of_verdicts(serve: Serve) -> None:
    served, session = serve(), person("session")
    world, hold = served.world, served.hold(session)
    served.record(world.receipt(hold, NODE, session, 1, 5), world.set_key(AUDITOR, KeyPurpose.AUDITOR))
    (batch,) = served.service.state.batches
    served.record(*(world.verdict(AUDITOR, NODE, batch, hold, Outcome.PASSED) for _ in range(MAX_VERDICTS)))
    assert refusal(served, world.verdict(AUDITOR, NODE, batch, hold, Outcome.PASSED)) == "batch-full"


def test_every_reason_has_a_status() -> None:
    assert set(Reason) <= set(STATUS)


def wrong_signature(served: Served) -> bytes:
    packed = served.world.fund(ALICE, 1_000).signed.pack()
    return packed[:-1] + bytes([packed[-1] ^ 1])


def test_a_wrong_signature_is_refused(served: Served) -> None:
    answer = served.http.post("/v1/commands", content=wrong_signature(served))
    assert (answer.status_code, answer.json()["error"]) == (400, "bad-signature")


def test_one_of_two_signatures_is_not_enough(served: Served) -> None:
    node, payee = person("half node"), person("half payee")
    signed = served.world.bind(node, payee).signed
    forged = replace(signed, signatures=(signed.signatures[0], signed.signatures[0]))
    answer = served.http.post("/v1/commands", content=forged.pack())
    assert answer.json()["error"] == "bad-signature"
    assert node.public not in served.service.state.nodes


# Of small order: the identity, and the one of order two; and one that is no point at all.
@pytest.mark.parametrize("key", [b"\1" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f", b"\2" + bytes(31)])
def test_keys_that_anybody_can_sign_for_are_not_registered(served: Served, key: bytes) -> None:
    operator = served.world.keys.operator
    for order in (
        served.world.obey(
            SetKey, operator, operator=operator.public, key=PublicKey(key), purpose=KeyPurpose.AUDITOR,
            state=KeyState.ACTIVE,
        ),
        served.world.obey(Grant, operator, operator=operator.public, account=PublicKey(key), amount_ucr=1),
    ):  # fmt: skip
        answer = served.command(order)
        assert (answer.status_code, answer.json()["error"]) == (400, "unregistrable-key")


def test_a_small_order_key_with_its_universal_signature_is_refused(served: Served) -> None:
    """R = identity and S = 0 verifies under some libraries for the key of the identity."""
    world, payee = served.world, person("payee")
    command = BindPayee(world.ledger, bytes(16), FAR_MS, PublicKey(b"\1" + bytes(31)), payee.public)
    body = command.pack()
    signatures = b"\1" + bytes(63) + payee.sign(b"nectar/bind-payee/v1/payee\n", body)
    answer = served.http.post("/v1/commands", content=body + signatures)
    assert answer.json()["error"] in ("bad-signature", "unregistrable-key")


@cache
def samples() -> list[bytes]:
    """A packed command of every kind."""
    world = World()
    hold = world_hold(world)
    session = person("session")
    orders = [
        *usual(world), world.open_hold(ALICE, session, {NODE: 1}, FAR_MS), world.withdraw(ALICE, 1_000),
        world.extend(ALICE, hold, {NODE: 2}, FAR_MS), world.close(session, hold), world.dispute(session, hold, NODE),
        world.change_payee(NODE, OWNER, ALICE), world.set_key(AUDITOR, KeyPurpose.AUDITOR),
        world.publish_policy(POLICY), world.verdict(AUDITOR, NODE, 9, hold, Outcome.PASSED),
    ]  # fmt: skip
    packed = [order.signed.pack() for order in orders]
    assert {type(parse_command(data).command) for data in packed} == set(KINDS)
    return packed


@given(data=st.data())
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_but_a_signed_command_are_taken(served: Served, data: st.DataObject) -> None:
    sample = data.draw(st.sampled_from(samples()))
    start = data.draw(st.integers(0, len(sample)))
    stop = data.draw(st.integers(start, len(sample)))
    body = sample[:start] + data.draw(st.binary(max_size=80)) + sample[stop:]
    if body in samples():
        return
    before = served.service.durable_size
    answer = served.http.post("/v1/commands", content=body)
    assert answer.status_code in (400, 402, 403, 404, 409), answer.text
    assert set(answer.json()) == {"error", "message"}
    assert served.service.durable_size == before


def test_what_is_sealed_is_in_no_answer_but_the_owners(served: Served) -> None:
    order = served.world.open_hold(ALICE, person("sealed session"), {NODE: 10}, served.clock() + LIFE_MS)
    answer = served.command(order)
    assert isinstance(order.signed.command, OpenHold)
    assert ALICE.public not in b64decode(answer.json()["hold"])


def test_models_and_policies_are_what_their_publisher_signed(served: Served) -> None:
    stranger = person("stranger")
    forged = served.world.obey(
        type(served.world.publish_model().signed.command), stranger, publisher=stranger.public,
        entry=ModelEntry(bytes(32), 1, MODEL.state, MODEL.blocks),
    )  # fmt: skip
    assert refusal(served, forged) == "not-authorized"
    assert isinstance(served.service.state.rules, Policy)
