"""Who may not open a session under a hold, and the reason that each is told."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from nectar_node.errors import PaymentError
from nectar_node.service import Service
from nectar_node.till import till as till_module
from nectar_node.till.till import Till
from nectar_protocol.announcement import Profile
from nectar_protocol.hold import Line
from nectar_protocol.policy import EXAMPLE
from nectar_protocol.receipt import SignedReceipt
from nectar_swarm.messages import ErrorCode, Open, Step
from nectar_swarm.payment import Payment

from tests.ledger.api.served import Clock
from tests.ledger.world import World, person
from tests.node.service.payers import NODE, OWNER, PLENTY, Payer, new_till, with_line
from tests.node.service.peers import KV, HandMade, numbers, request
from tests.node.sessions import noise

pytestmark = pytest.mark.asyncio(loop_scope="module")
MALLORY = person("mallory")


@pytest.fixture(scope="module")
def till(tmp_path_factory: pytest.TempPathFactory, clock: Clock) -> Iterator[Till]:
    till = new_till(tmp_path_factory.mktemp("node"), clock)
    yield till
    till.spool.close()


async def denied(payer: Payer, asked: Open) -> str:
    """The reason. The node must be as it was: nothing reserved, nothing remembered as open."""
    before = await payer.client.status()
    error = await payer.refused(asked)
    assert error.code is ErrorCode.DENIED
    after = await payer.client.status()
    assert (after.kv_free, after.sessions) == (before.kv_free, before.sessions)
    return error.text


HOLDS: dict[str, tuple[dict[str, object], str]] = {
    "of another ledger": ({"ledger": World(policy=EXAMPLE).ledger}, "the hold is of ledger"),
    "for another model": ({"model": bytes(32)}, "another model"),
    "for other profiles": ({"profiles": frozenset({Profile.NF4})}, "does not take f32"),
    "expired": ({"expires_ms": 1}, "expired"),
    "of an unknown policy": ({"policy": bytes(32)}, "does not know the policy"),
    "without room for the opening": ({"lines": (Line(NODE.public, 1),)}, "before the first step"),
}


@pytest.mark.parametrize("name", HOLDS)
async def test_a_hold_that_is_not_good_here_is_refused(client: HandMade, name: str) -> None:
    changes, reason = HOLDS[name]
    payer = Payer(client, f"hold {name}", **changes)
    assert reason in await denied(payer, payer.paid())


async def test_an_unknown_policy_is_asked_for_only_if_the_ledger_signed_the_hold(client: HandMade, till: Till) -> None:
    till.wanted.clear()
    payer = Payer(client, "unknown policy", policy=bytes([5] * 32))
    forged = replace(payer.payment(request()), hold=payer.hold.signed(MALLORY))
    assert "ledger's key" in await denied(payer, replace(request(), hold=forged.pack()))
    assert not till.wanted
    await denied(payer, payer.paid())
    assert till.wanted == {bytes([5] * 32)}


async def test_a_hold_is_good_for_half_a_minute_longer_than_it_says(client: HandMade, clock: Clock) -> None:
    payer = Payer(client, "skew", expires_ms=clock.now_ms - 29_000)
    await payer.open()


Forge = Callable[[Payer, Open], Payment]
FORGERIES: dict[str, tuple[Forge, str]] = {
    "altered after the ledger signed it": (
        lambda payer, asked: replace(
            payer.payment(asked), hold=replace(payer.signed(), hold=with_line(payer.hold, 2 * PLENTY))
        ),
        "not signed by its ledger's key",
    ),
    "signed by somebody else's ledger key": (
        lambda payer, asked: replace(payer.payment(asked), hold=payer.hold.signed(MALLORY)),
        "not signed by its ledger's key",
    ),
    "of a session key that is the node's own": (
        lambda payer, asked: replace(payer.payment(asked), hold=payer.signed(replace(payer.hold, session=NODE.public))),
        "this node's own",
    ),
    "of somebody else": (
        lambda payer, asked: replace(payer.payment(asked), signature=Payer(payer.client, "m").payment(asked).signature),
        "has not signed this opening",
    ),
    "signed for another node": (
        lambda payer, asked: payer.payment(asked, node=MALLORY.public),
        "has not signed this opening",
    ),
    "signed for another link": (
        lambda payer, asked: payer.payment(asked, link=MALLORY.peer_id),
        "has not signed this opening",
    ),
    "signed for another session": (
        lambda payer, asked: payer.payment(asked, number=payer.number + 1),
        "has not signed this opening",
    ),
    "signed for another request": (
        lambda payer, asked: payer.payment(replace(asked, max_length=asked.max_length - 1)),
        "has not signed this opening",
    ),
    "with another salt than was signed": (
        lambda payer, asked: replace(payer.payment(asked), salt=bytes(32)),
        "has not signed this opening",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
async def test_a_payment_that_is_not_the_openers_own_is_refused(client: HandMade, name: str) -> None:
    forge, reason = FORGERIES[name]
    payer, asked = Payer(client, f"payment {name}"), request()
    assert reason in await denied(payer, replace(asked, hold=forge(payer, asked).pack()))


async def test_an_opening_that_somebody_saw_is_of_no_use_to_him(client: HandMade, stranger: HandMade) -> None:
    payer = Payer(client, "seen by others")
    await payer.open()
    thief = Payer(stranger, "seen by others")
    thief.number = payer.number
    assert (await stranger.refusal(payer.number, payer.request)).text == "this session number is taken"
    await client.close(payer.number)
    await payer.bill(1)
    assert "final receipt" in await denied(thief, payer.request)


async def test_what_is_no_payment_at_all_is_malformed(client: HandMade) -> None:
    for hold in (b"h" * 100, Payer(client, "cut").paid().hold[:-1], Payer(client, "cut").paid().hold + b"x"):
        error = await client.refusal(next(numbers), request(hold=hold))
        assert error.code is ErrorCode.MALFORMED


async def test_a_hold_opens_one_session_at_a_time(client: HandMade, stranger: HandMade) -> None:
    payer = Payer(client, "one at a time")
    await payer.open()
    other = Payer(stranger, "one at a time")
    assert "a session is open here" in await denied(other, other.paid())
    await payer.step(Step(1, 1, 0, noise(1, 2)))


async def test_a_closed_line_stays_closed_whatever_is_shown(client: HandMade, till: Till) -> None:
    payer = Payer(client, "closed")
    await payer.open()
    await payer.step(Step(1, 1, 0, noise(1, 2)))
    first = await payer.bill(1)
    shown = payer.receipt
    await payer.close()
    assert first.receipt.final is False
    for receipt in (None, shown, payer.receipt):
        again = Payer(client, "closed")
        assert "final receipt" in await denied(again, again.paid(receipt))
    revised = Payer(client, "closed", hold=with_line(payer.hold, 2 * PLENTY))
    assert "final receipt" in await denied(revised, revised.paid())


async def test_after_a_restart_a_closed_line_is_closed_and_an_open_one_goes_on(
    client: HandMade, service: Service, till: Till, clock: Clock
) -> None:
    closed, left = Payer(client, "closed before"), Payer(client, "left before")
    for payer in (closed, left):
        await payer.open()
        await payer.step(Step(1, 1, 0, noise(1, 2)))
        await payer.bill(1)
    await closed.close()
    await client.status()
    till.spool.flush()
    restarted, link = new_till(till.spool.path.parent, clock), service.peers.link(client.host.peer_id)
    assert link is not None
    with pytest.raises(PaymentError, match="final receipt"):
        restarted.check(closed.payment(request()), request(), link, closed.number)
    ticket = restarted.check(left.payment(request()), request(), link, left.number)
    assert left.receipt is not None
    assert (ticket.line.tally.seq, ticket.line.receipt) == (1, left.receipt)
    restarted.spool.close()


async def test_an_older_revision_does_not_take_back_what_a_newer_one_gave(client: HandMade, service: Service) -> None:
    payer = Payer(client, "revisions")
    raised = Payer(client, "revisions", hold=with_line(payer.hold, 2 * PLENTY))
    await raised.open()
    await payer.open()
    account = service._sessions[payer.number].account
    assert account is not None
    assert account.line.cap_units == 2 * PLENTY


async def test_a_revision_that_takes_something_back_opens_nothing(client: HandMade) -> None:
    payer = Payer(client, "falling")
    await payer.open()
    lower = Payer(client, "falling", hold=with_line(payer.hold, PLENTY - 1))
    assert "falls from" in await denied(lower, lower.paid())


def receipts_of(payer: Payer) -> dict[str, tuple[SignedReceipt, str]]:
    """Receipts that this session cannot go on from."""
    assert payer.receipt is not None
    receipt, signed = payer.receipt.receipt, payer.receipt
    other = replace(receipt, hold=bytes(32))
    newer = replace(receipt, seq=receipt.seq + 5, units=0)
    return {
        "of another line": (SignedReceipt(other, other.sign(NODE), other.sign(payer.key)), "another line"),
        "that the node did not sign": (
            SignedReceipt(newer, signed.server_signature, newer.sign(payer.key)),
            "not signed by both",
        ),
        "that the session did not sign": (
            SignedReceipt(newer, newer.sign(NODE), signed.session_signature),
            "not signed by both",
        ),
    }


async def test_a_session_goes_on_from_nothing_but_a_receipt_of_its_own(client: HandMade, till: Till) -> None:
    payer = Payer(client, "foreign receipts")
    await payer.open()
    await payer.step(Step(1, 1, 0, noise(1, 2)))
    await payer.bill(1)
    await client.close(payer.number)
    del till.spool.lines[payer.hold.id]
    for receipt, reason in receipts_of(payer).values():
        again = Payer(client, "foreign receipts")
        assert reason in await denied(again, again.paid(receipt))


async def test_another_span_is_another_line(client: HandMade) -> None:
    payer = Payer(client, "span")
    await payer.open()
    await payer.step(Step(1, 1, 0, noise(1, 2)))
    await payer.bill(1)
    again = Payer(client, "span")
    assert "another line" in await denied(again, again.paid(start=2))


async def test_a_hold_whose_sessions_were_left_unpaid_too_often_opens_no_more(
    client: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(till_module, "MAX_LAPSES", 3)
    for _ in range(4):  # each one ends when the next one comes
        payer = Payer(client, "never signs")
        payer.signs = 0
        await payer.open()
        await payer.step(Step(1, 1, 0, noise(1, 2)))
    payer = Payer(client, "never signs")
    assert "left unsigned" in await denied(payer, payer.paid())


async def test_a_hold_that_was_signed_for_sixteen_times_as_much_as_was_left_unpaid_opens_again(
    client: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(till_module, "MAX_LAPSES", 1)
    payer = Payer(client, "loses its link")
    await payer.open(max_length=128)
    await payer.step(Step(1, 1, 0, noise(1, 100)))
    await payer.bill(1)
    payer.signs = 0
    await payer.step(Step(2, 2, 100, noise(1, 1)))
    for _ in range(2):  # each opening ends the session before, which leaves a token unsigned
        again = Payer(client, "loses its link")
        again.signs = 0
        await again.open(payer.receipt, max_length=128)
        await again.step(Step(1, 1, 0, noise(1, 1)))
    last = Payer(client, "loses its link")
    assert "left unsigned" in await denied(last, last.paid(payer.receipt, max_length=128))


async def test_a_full_node_forgets_what_it_could_not_take(client: HandMade, stranger: HandMade) -> None:
    await Payer(stranger, "fills it", weight=8).open(max_length=KV)
    payer = Payer(client, "full")
    assert (await payer.refused(payer.paid())).code is ErrorCode.BUSY
    other = Payer(stranger, "full", weight=0)
    assert (await other.refused(other.paid())).code is ErrorCode.BUSY  # and not that a session is open


# What kind of node it is


async def test_a_node_that_is_not_bound_to_its_owner_takes_no_holds(client: HandMade, till: Till) -> None:
    till.owner = MALLORY.public
    payer = Payer(client, "not bound")
    try:
        assert (await client.status()).ledger == b""
        assert "takes no holds" in await denied(payer, payer.paid())
        await client.close(await client.open(request()))
    finally:
        till.owner = OWNER.public
    await payer.open()


async def test_a_node_that_serves_only_under_holds_says_so(client: HandMade, till: Till) -> None:
    till.serves_unmetered = False
    try:
        refused = await client.refusal(next(numbers), request())
        assert (refused.code, refused.text) == (ErrorCode.DENIED, "this node serves only under a hold")
        await Payer(client, "metered only").open()
    finally:
        till.serves_unmetered = True


async def test_a_link_of_an_older_version_pays_nothing(
    client: HandMade, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = service.peers.link(client.host.peer_id)
    assert link is not None
    monkeypatch.setattr(link, "version", 2)
    payer = Payer(client, "old link")
    assert "version 3" in (await payer.refused(payer.paid())).text
