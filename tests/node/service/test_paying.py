"""Sessions under holds: what was done is billed and both sign it, and a node never does more than a window unpaid."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from nectar_node.service import Service
from nectar_node.till import account
from nectar_node.till.line import WINDOW_STEPS, WINDOW_TOKENS
from nectar_node.till.till import Till
from nectar_protocol.hold import Line
from nectar_protocol.receipt import Work
from nectar_swarm.bills import Countersignature
from nectar_swarm.frames import Kind
from nectar_swarm.keyfile import create_key
from nectar_swarm.messages import Error, ErrorCode, Step

from tests.ledger.api.served import Clock
from tests.node.service.payers import NODE, PLENTY, WORLD, Payer, line_of_another, new_till, with_line
from tests.node.service.peers import KV, HandMade, alone, equal, request, span_of
from tests.node.sessions import noise

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("node") / "node.key"
    create_key(path, NODE)
    return path


@pytest.fixture(scope="module")
def till(key_file: Path, clock: Clock) -> Iterator[Till]:
    till = new_till(key_file.parent, clock)
    yield till
    till.spool.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node waits for nobody."""
    monkeypatch.setattr(account, "UNPAID_S", 0.05)


def singles(count: int, seed: int = 0) -> list[Step]:
    return [Step(at, at, at - 1, piece) for at, piece in enumerate(noise(1, count, seed).split(1, 1), 1)]


async def test_a_session_is_billed_signed_and_kept_and_its_output_is_that_of_an_unmetered_one(
    service: Service, client: HandMade, till: Till
) -> None:
    pieces = noise(1, 30).split([6, *[1] * 24], 1)
    want = alone(span_of(service), pieces)
    payer = Payer(client, "a whole session")
    await payer.open(max_length=32)
    steps, answers, position = [], [], 0
    for at, piece in enumerate(pieces, 1):
        steps.append(Step(at, at, position, piece))
        answers.append(await payer.step(steps[-1]))
        equal(answers[-1], want[at - 1])
        position += piece.shape[1]
    final = await payer.close()
    payer.check(steps, answers)
    assert final.receipt.work == Work(32, 5, sum(range(1, 6)), 25, 0 + sum(range(6, 30)))
    assert [len(bill.steps) for bill in payer.bills[:3]] == [8, 8, 8]
    kept = till.spool.lines[payer.hold.id]
    assert kept.receipt == payer.receipt
    assert kept.receipt.receipt.final
    assert kept.paid_ucr == final.receipt.units * 98 // 100


async def test_rows_rollbacks_reorders_and_replays_are_counted_as_they_came(client: HandMade, service: Service) -> None:
    steps = [
        Step(1, 1, 0, noise(2, 5)),
        Step(2, 2, 5, noise(2, 1, seed=1), reorder=(1, 0)),
        Step(3, 3, 3, noise(2, 2, seed=2)),  # takes three positions back
        Step(4, 9, 5, noise(2, 3, seed=3)),  # a replay
    ]
    payer = Payer(client, "rows")
    await payer.open(pads=(0, 0))
    answers = [await payer.step(step) for step in steps]
    final = await payer.close()
    payer.check(steps, answers)
    work = final.receipt.work
    assert (work.prefill_tokens, work.decode_tokens) == (2 * (4 + 1 + 2), 2 * 4)


async def test_a_long_prompt_is_hashed_in_a_thread_and_what_comes_behind_it_stays_in_order(
    client: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "INLINE_BYTES", 2048)
    pieces = noise(1, 120).split([100, *[1] * 20], 1)
    payer = Payer(client, "a long prompt")
    await payer.open(max_length=128)
    steps, position = [], 0
    for at, piece in enumerate(pieces, 1):
        steps.append(Step(at, at, position, piece))
        client.send(payer.number, steps[-1])
        position += piece.shape[1]
    answers = [await payer.receive() for _ in steps]
    await payer.close()
    payer.check(steps, answers)


async def test_what_is_left_is_billed_when_it_is_quiet(client: HandMade) -> None:
    payer = Payer(client, "a quiet one")
    await payer.open()
    await payer.step(Step(1, 1, 0, noise(1, 3)))
    bill = await payer.bill(1)
    assert [step.last for step in bill.steps] == [1]
    assert not bill.receipt.final


async def test_a_session_that_did_nothing_pays_for_its_opening(client: HandMade, till: Till) -> None:
    payer = Payer(client, "nothing done")
    await payer.open()
    final = await payer.close()
    assert final.receipt.work == Work(16)
    assert final.receipt.units > 0
    assert till.spool.lines[payer.hold.id].seq == 1


async def test_an_opening_without_steps_is_billed_when_it_is_quiet_and_only_once(client: HandMade, till: Till) -> None:
    payer = Payer(client, "nothing yet")
    await payer.open()
    bill = await payer.bill(1)
    assert (bill.steps, bill.receipt.final, bill.receipt.work) == ((), False, Work(16))
    await client.status()
    assert till.spool.lines[payer.hold.id].receipt == payer.receipt
    step = Step(1, 1, 0, noise(1, 3))
    answers = [await payer.step(step)]
    final = await payer.close()
    payer.check([step], answers)
    assert final.receipt.work == Work(16, 2, 1 + 2, 1)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("lines", [None, line_of_another()], ids=["unsigned", "without a line"])
async def test_an_opening_that_nobody_pays_for_ends_and_its_kv_is_free_again(
    client: HandMade, lines: tuple[Line, ...] | None
) -> None:
    payer = Payer(client, f"squats {lines}", **({} if lines is None else {"lines": lines}))
    payer.signs = 0
    await payer.open()
    assert (await client.status()).kv_free == KV - 16
    ended = await payer.receive()
    assert (ended.code, "its opening has not been" in ended.text) == (ErrorCode.UNPAID, True)
    status = await client.status()
    assert (status.sessions, status.kv_free) == (0, KV)
    assert len(payer.bills) == (lines is None)


async def test_what_is_reserved_again_is_billed_only_if_it_is_more(
    client: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    payer = Payer(client, "more room")
    await payer.open()
    await payer.bill(1)
    more = Payer(client, "more room")
    await more.open(payer.receipt, max_length=24)
    bill = await more.bill(1)
    assert (bill.steps, bill.receipt.work, bill.receipt.seq) == ((), Work(24), 2)
    await client.status()
    monkeypatch.setattr(account, "QUIET_S", 0.01)
    as_much = Payer(client, "more room")
    await as_much.open(more.receipt, max_length=24)
    await as_much.step(Step(1, 1, 0, noise(1, 3)))
    assert len((await as_much.bill(1)).steps) == 1


async def test_what_an_eviction_makes_the_node_compute_again_is_not_counted(client: HandMade, service: Service) -> None:
    payer = Payer(client, "evicted")
    await payer.open()
    steps = [Step(1, 1, 0, noise(1, 6)), Step(2, 2, 6, noise(1, 1))]
    answers = [await payer.step(steps[0])]
    await payer.bill(1)
    service.admission.evict(service._sessions[payer.number])
    answers.append(await payer.step(steps[1]))
    final = await payer.close()
    payer.check(steps, answers)
    assert (final.receipt.work.prefill_tokens, final.receipt.work.decode_tokens) == (5, 2)


async def test_a_step_that_comes_again_is_counted_once(client: HandMade) -> None:
    payer = Payer(client, "twice")
    await payer.open()
    step = Step(1, 1, 0, noise(1, 2))
    answers = [await payer.step(step)]
    client.send(payer.number, step)
    await payer.close()
    payer.check([step], answers)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("signed", range(5))
async def test_whoever_stops_signing_costs_sixteen_steps(client: HandMade, till: Till, signed: int) -> None:
    payer = Payer(client, f"stops after {signed}")
    payer.signs = signed
    await payer.open(max_length=64)
    for step in singles(60):
        client.send(payer.number, step)
    answers = []
    while isinstance(message := await payer.receive(), Step):
        answers.append(message)
    assert isinstance(message, Error)
    assert message.code is ErrorCode.UNPAID
    assert "countersigned" in message.text
    covered = 0 if payer.receipt is None else payer.receipt.receipt.work.decode_tokens
    assert len(answers) == covered + WINDOW_STEPS
    kept = till.spool.lines.get(payer.hold.id)
    assert (kept and kept.receipt) == payer.receipt


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("signed", range(4))
@pytest.mark.parametrize(("rows", "positions"), [(2, 50), (1, 200), (128, 2)])
async def test_whoever_stops_signing_costs_1024_tokens(
    client: HandMade, signed: int, rows: int, positions: int
) -> None:
    payer = Payer(client, f"stops after {signed} of {rows} times {positions}")
    payer.signs = signed
    await payer.open(max_length=positions, pads=(0,) * rows)
    piece = noise(rows, positions)
    for at in range(1, 80):
        client.send(payer.number, Step(at, at, 0, piece))
    done = 0
    while isinstance(message := await payer.receive(), Step):
        done += rows * positions
    assert isinstance(message, Error)
    assert message.code is ErrorCode.UNPAID
    receipt = payer.receipt
    work = Work() if receipt is None else receipt.receipt.work
    covered = work.prefill_tokens + work.decode_tokens
    assert WINDOW_TOKENS - rows * positions < done - covered <= WINDOW_TOKENS


async def test_a_step_that_no_window_has_room_for_is_refused_and_the_session_lives(
    client: HandMade, service: Service
) -> None:
    payer = Payer(client, "too large")
    await payer.open(max_length=2, pads=(0,) * 128)
    refused = await client.refusal(payer.number, Step(1, 1, 0, noise(128, 9)))
    assert refused.code is ErrorCode.OUT_OF_RANGE
    assert "1152 tokens" in refused.text
    await payer.step(Step(1, 1, 0, noise(128, 2)))


async def test_a_wrong_countersignature_is_refused_and_the_right_one_still_counts(client: HandMade, till: Till) -> None:
    payer = Payer(client, "wrong signature")
    payer.signs = 0
    await payer.open()
    await payer.step(Step(1, 1, 0, noise(1, 2)))
    bill = await payer.bill(1)
    wrong = Countersignature(bill.receipt.seq, bytes(64)).pack()
    refused = await client.refusal(payer.number, wrong, Kind.COUNTERSIGN)
    assert refused.code is ErrorCode.DENIED
    assert payer.hold.id not in till.spool.lines
    payer.countersign(bill)
    await client.status()
    assert till.spool.lines[payer.hold.id].receipt == payer.receipt


async def test_nobody_else_can_countersign_or_extend(client: HandMade, stranger: HandMade, till: Till) -> None:
    payer = Payer(client, "not yours")
    payer.signs = 0
    await payer.open()
    await payer.step(Step(1, 1, 0, noise(1, 2)))
    bill = await payer.bill(1)
    answer = Countersignature(bill.receipt.seq, bill.receipt.sign(payer.key)).pack()
    stranger.send(payer.number, answer, Kind.COUNTERSIGN)
    await stranger.status()
    assert payer.hold.id not in till.spool.lines


# Caps, lines and lives of holds


async def test_over_the_cap_a_step_waits_for_a_revision(client: HandMade) -> None:
    payer = Payer(client, "a small cap", cap=1100)
    await payer.open(max_length=8)
    steps = singles(6)
    for step in steps:
        client.send(payer.number, step)
    answers = [await payer.receive() for _ in range(3)]
    await payer.bill(1)
    assert client.inbox[payer.number].empty()
    client.send(payer.number, payer.signed(with_line(payer.hold)).pack(), Kind.HOLD)
    answers += [await payer.receive() for _ in range(3)]
    await payer.close()
    payer.check(steps, answers)


@pytest.mark.usefixtures("impatient")
async def test_over_the_cap_nothing_is_computed_for_whoever_sends_none(client: HandMade) -> None:
    payer = Payer(client, "a small cap for good", cap=1100)
    await payer.open(max_length=8)
    for step in singles(6):
        client.send(payer.number, step)
    for _ in range(3):
        assert isinstance(await payer.receive(), Step)
    message = await payer.receive()
    assert (message.code, "1100" in message.text) == (ErrorCode.UNPAID, True)
    assert payer.receipt is not None
    assert payer.receipt.receipt.units <= 1100


async def test_a_hold_without_a_line_here_works_for_a_window_and_is_billed_once_it_has_one(client: HandMade) -> None:
    payer = Payer(client, "no line yet", lines=line_of_another())
    await payer.open(max_length=32)
    steps = singles(20)
    for step in steps:
        client.send(payer.number, step)
    answers = [await payer.receive() for _ in range(WINDOW_STEPS)]
    assert not payer.bills
    client.send(payer.number, payer.signed(with_line(payer.hold)).pack(), Kind.HOLD)
    answers += [await payer.receive() for _ in range(20 - WINDOW_STEPS)]
    await payer.close()
    payer.check(steps, answers)


@pytest.mark.usefixtures("impatient")
async def test_a_hold_without_a_line_here_buys_no_more_than_a_window(client: HandMade, till: Till) -> None:
    payer = Payer(client, "never a line", lines=line_of_another())
    await payer.open(max_length=32)
    for step in singles(20):
        client.send(payer.number, step)
    for _ in range(WINDOW_STEPS):
        assert isinstance(await payer.receive(), Step)
    message = await payer.receive()
    assert (message.code, "no line" in message.text) == (ErrorCode.UNPAID, True)
    assert not payer.bills
    assert payer.hold.id not in till.spool.lines


async def test_a_hold_that_expires_stops_its_session_until_it_lives_longer(client: HandMade, clock: Clock) -> None:
    payer = Payer(client, "short of life")
    await payer.open()
    steps = singles(2)
    answers = [await payer.step(steps[0])]
    began_ms = clock.now_ms
    clock.now_ms = payer.hold.expires_ms + 60_000
    client.send(payer.number, steps[1])
    await payer.bill(1)
    await client.status()
    assert client.inbox[payer.number].empty()
    longer = with_line(payer.hold, expires_ms=payer.hold.expires_ms + 600_000)
    client.send(payer.number, payer.signed(longer).pack(), Kind.HOLD)
    answers.append(await payer.receive())
    clock.now_ms = began_ms
    await payer.close()
    payer.check(steps, answers)


async def test_a_revision_that_the_ledger_did_not_sign_or_that_takes_something_back_is_refused(
    client: HandMade,
) -> None:
    payer = Payer(client, "wrong revisions")
    await payer.open()
    forged = with_line(payer.hold).signed(NODE).pack()
    assert "ledger's key" in (await client.refusal(payer.number, forged, Kind.HOLD)).text
    less = payer.signed(with_line(payer.hold, PLENTY - 1)).pack()
    assert "falls from" in (await client.refusal(payer.number, less, Kind.HOLD)).text
    other = Payer(client, "another hold").signed().pack()
    assert "another hold" in (await client.refusal(payer.number, other, Kind.HOLD)).text
    client.send(payer.number, payer.signed().pack(), Kind.HOLD)  # the one it has
    await payer.step(Step(1, 1, 0, noise(1, 2)))


async def test_a_sessions_weight_is_its_holds(client: HandMade, service: Service) -> None:
    payer = Payer(client, "weight", weight=4)
    await payer.open()
    assert service._sessions[payer.number].weight == 4
    number = await client.open(request())
    assert service._sessions[number].weight == 0


# Going on


async def test_a_session_opened_again_goes_on_from_the_receipt_that_it_shows(
    client: HandMade, service: Service
) -> None:
    payer = Payer(client, "again")
    await payer.open()
    await payer.step(Step(1, 1, 0, noise(1, 3)))
    await payer.bill(1)
    await client.status()
    again = Payer(client, "again")
    await again.open(payer.receipt)
    step = Step(1, 1, 0, noise(1, 3))
    answers = [await again.step(step)]
    assert payer.number not in service._sessions  # the older one made way
    await again.close()
    again.check([step], answers)
    assert again.bills[0].receipt.seq == 2
    assert again.bills[0].receipt.work == Work(16, 4, 2 * (1 + 2), 2)


async def test_whoever_shows_no_receipt_does_not_begin_anew(client: HandMade) -> None:
    payer = Payer(client, "forgetful")
    await payer.open()
    await payer.step(Step(1, 1, 0, noise(1, 3)))
    await payer.bill(1)
    again = Payer(client, "forgetful")
    await again.open(max_length=4)
    await again.step(Step(1, 1, 0, noise(1, 2)))
    bill = await again.bill(1)
    assert bill.receipt.seq == 2
    assert bill.receipt.work == Work(16, 3, 1 + 2 + 1, 2)


async def test_a_receipt_newer_than_the_nodes_own_is_kept(client: HandMade, till: Till) -> None:
    payer = Payer(client, "newer")
    await payer.open()
    await payer.step(Step(1, 1, 0, noise(1, 3)))
    await payer.bill(1)
    await client.status()
    kept = till.spool.lines.pop(payer.hold.id)
    again = Payer(client, "newer")
    await again.open(payer.receipt)
    assert till.spool.lines[payer.hold.id].receipt == kept.receipt


async def test_final_receipts_come_after_the_session_and_its_kv_are_gone(client: HandMade, service: Service) -> None:
    payer = Payer(client, "late")
    payer.signs = 0
    await payer.open()
    await payer.step(Step(1, 1, 0, noise(1, 3)))
    client.send(payer.number, b"", Kind.CLOSE)
    final = await payer.bill(1)
    status = await client.status()
    assert (status.sessions, status.kv_free) == (0, KV)
    assert final.receipt.final
    payer.countersign(final)
    await client.status()
    asked = Payer(client, "late")
    assert "final receipt" in (await asked.refused(asked.paid())).text


async def test_a_bill_that_is_open_at_the_close_is_answered_before_the_final_one_comes(client: HandMade) -> None:
    payer = Payer(client, "open bill")
    payer.signs = 0
    await payer.open()
    steps = [Step(1, 1, 0, noise(1, 3)), Step(2, 2, 3, noise(1, 1))]
    answers = [await payer.step(steps[0])]
    first = await payer.bill(1)
    answers.append(await payer.step(steps[1]))
    client.send(payer.number, b"", Kind.CLOSE)
    await client.status()
    assert client.inbox[payer.number].empty()
    payer.signs = 9
    payer.countersign(first)
    final = await payer.bill(2)
    assert [step.last for step in final.steps] == [2]
    payer.check(steps, answers)


async def test_the_status_names_the_ledger(client: HandMade) -> None:
    assert (await client.status()).ledger == WORLD.ledger


async def test_a_strangers_session_of_the_same_number_leaves_a_final_bill_open(
    client: HandMade, stranger: HandMade, till: Till
) -> None:
    payer = Payer(client, "same number")
    payer.signs = 0
    await payer.open()
    await payer.step(Step(1, 1, 0, noise(1, 2)))
    client.send(payer.number, b"", Kind.CLOSE)
    final = await payer.bill(1)
    other = Payer(stranger, "the stranger's own")
    other.number = payer.number
    await other.open()
    payer.countersign(final)
    await client.status()
    assert till.spool.lines[payer.hold.id].receipt == payer.receipt


async def test_a_node_that_leaves_waits_a_moment_for_final_receipts(
    client: HandMade, service: Service, till: Till
) -> None:
    payer = Payer(client, "leaving")
    payer.signs = 0
    await payer.open()
    await payer.step(Step(1, 1, 0, noise(1, 2)))
    client.send(payer.number, b"", Kind.CLOSE)
    final = await payer.bill(1)
    stopping = asyncio.create_task(service._desk.stop())
    await client.status()
    assert not stopping.done()
    payer.countersign(final)
    await stopping
    assert till.spool.lines[payer.hold.id].receipt == payer.receipt
