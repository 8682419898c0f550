"""Fair queueing: shares by weight, a tenth for those who do not pay, and nothing for whoever splits or waits."""

from collections import Counter
from collections.abc import Callable, Hashable
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_node.fairqueue import FairQueue
from nectar_node.scheduler import MAX_ROWS, Work

from tests.node.crowd import WEIGHTS, Crowd, prompt, token, work
from tests.node.firstcome import FirstCome

# Shares


@given(st.data(), st.lists(st.sampled_from(WEIGHTS), min_size=2, max_size=5), st.integers(0, 3))
def test_one_step_at_a_time_no_two_that_wait_drift_further_apart_than_one_step_of_each(
    data: st.DataObject, weights: list[int], free: int
) -> None:
    queue = FairQueue(max_rows=1)
    batches, blocks = st.integers(1, 20), st.integers(1, 4)

    def next_of(flow: int) -> Work:
        weight = weights[flow] if flow < len(weights) else 0
        return work(flow, weight, batch=data.draw(batches), blocks=data.draw(blocks))

    for flow in range(len(weights) + free):
        queue.add(next_of(flow))
    work_done = [0.0] * len(weights)
    longest = [0.0] * len(weights)
    drifts: dict[tuple[int, int], list[float]] = {pair: [0.0] for pair in combinations(range(len(weights)), 2)}
    for _ in range(60):
        [grant] = queue.take(None)
        flow = grant.work.flow
        if flow < len(weights):
            cost = grant.rows * grant.work.kv.stop / weights[flow]
            work_done[flow] += cost
            longest[flow] = max(longest[flow], cost)
            for (one, other), drift in drifts.items():
                drift.append(work_done[one] - work_done[other])
        grant.work.done += grant.tokens
        queue.add(next_of(flow))
    for (one, other), drift in drifts.items():
        assert max(drift) - min(drift) <= longest[one] + longest[other] + 1e-9


@pytest.mark.parametrize(
    ("step", "budget", "late"),
    [
        *((token, budget, 0) for budget in (1, 4, 12, 18)),
        *((token, budget, 1) for budget in (4, 9)),
        (token, 4, 2),
        *((prompt, budget, late) for budget in (16, 128) for late in (0, 1)),
        (prompt, 512, 0),
    ],
)
def test_whoever_waits_gets_its_share_by_weight_and_the_free_class_a_tenth(
    step: Callable[[Hashable, int], Work], budget: int, late: int
) -> None:
    crowd = Crowd(FairQueue(max_rows=budget), step, late)
    for weight in (0, *WEIGHTS):
        crowd.join(weight, 10)
    crowd.run(3000)
    shares = crowd.shares()
    assert 0.08 <= shares.pop(0) <= 0.12
    for weight, share in shares.items():
        assert share / sum(shares.values()) == pytest.approx(weight / sum(WEIGHTS), rel=0.05)


MIXES: dict[str, dict[int, tuple[int, int]]] = {  # by weight, how many decode and how many send prompts
    "heavy prompts beside light steps": {0: (24, 0), 1: (24, 0), 8: (0, 4)},
    "light prompts beside heavy steps": {0: (24, 0), 1: (0, 4), 8: (24, 0)},
    "prompts that nobody pays for beside steps": {0: (0, 4), 1: (24, 0), 2: (24, 0)},
    "prompts that nobody pays for beside steps and prompts": {0: (0, 4), 1: (24, 0), 8: (0, 4)},
    "steps that nobody pays for beside prompts": {0: (24, 0), 1: (0, 4), 4: (0, 4)},
    "everything": {0: (24, 4), 1: (24, 4), 2: (24, 4), 8: (24, 4)},
}


@pytest.mark.parametrize("late", [0, 1])
@pytest.mark.parametrize("mix", MIXES)
def test_in_every_mix_of_prompts_and_steps_the_free_class_has_a_tenth_and_each_kind_its_shares_by_weight(
    mix: str, late: int
) -> None:
    steps = {weight: count for weight, (count, _) in MIXES[mix].items()}

    def step(flow: Hashable, weight: int) -> Work:
        assert isinstance(flow, tuple)
        return work(flow, weight, 1 if flow[1] < steps[weight] else 1000)

    crowd = Crowd(FairQueue(max_rows=16), step, late)
    for weight, counts in MIXES[mix].items():
        crowd.join(weight, sum(counts))
    crowd.run(3000)
    assert crowd.shares()[0] == pytest.approx(0.1, abs=0.005)
    paid = [weight for weight in MIXES[mix] if weight]
    prompts = {weight: [crowd.got[weight, steps[weight] + n] for n in range(MIXES[mix][weight][1])] for weight in paid}
    per_weight = [sum(rows) / len(rows) / weight for weight, rows in prompts.items() if rows]
    assert max(per_weight, default=1) <= 1.05 * min(per_weight, default=1), "prompts"
    if late == 0:  # else the heaviest are in every iteration that they can be in
        each = {weight: [crowd.got[weight, n] for n in range(steps[weight])] for weight in paid}
        per_weight = [sum(rows) / len(rows) / weight for weight, rows in each.items() if rows]
        assert max(per_weight, default=1) <= 1.05 * min(per_weight, default=1), "steps"


def test_those_who_do_not_pay_save_nothing_for_when_they_come() -> None:
    crowd = Crowd(FairQueue(max_rows=16), token)
    crowd.join(1, 40)
    crowd.run(1000)
    crowd.join(0, 40)
    crowd.run(2)
    assert crowd.rows(0) <= 3


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_the_free_share_is_what_it_is_told(share: float) -> None:
    crowd = Crowd(FairQueue(share, 12), token)
    for weight in (0, *WEIGHTS):
        crowd.join(weight, 10)
    crowd.run(2000)
    assert crowd.shares()[0] == pytest.approx(share, rel=0.05)


@pytest.mark.parametrize("budget", [8, 25])
def test_a_newcomer_gets_what_its_peers_get_even_beside_those_who_are_in_every_iteration(budget: int) -> None:
    crowd = Crowd(FairQueue(max_rows=budget), token)
    for weight in WEIGHTS:
        crowd.join(weight, 10)
    crowd.run(2000)
    crowd.got.clear()
    for number in range(10, 15):
        crowd.queue.add(token((1, number), 1))
    crowd.run(200)
    peers, newcomers = (sum(crowd.got[1, number] for number in who) / len(who) for who in (range(10), range(10, 15)))
    assert newcomers == pytest.approx(peers, rel=0.25)


def test_a_session_of_fewer_blocks_pays_for_no_others() -> None:
    crowd = Crowd(FairQueue(max_rows=1), lambda flow, weight: work(flow, weight, blocks=1 if flow == (1, 0) else 4))
    crowd.join(1, 2)
    crowd.run(1000)
    assert crowd.got[1, 0] == pytest.approx(4 * crowd.got[1, 1], rel=0.05)


# Those who do not pay


@given(st.data())
def test_while_nobody_pays_all_is_as_first_come_first_served(data: st.DataObject) -> None:
    queue, reference = FairQueue(), FirstCome()
    shapes = st.tuples(st.integers(1, 4) | st.integers(1, 512), st.integers(1, 8) | st.integers(1, 2000))
    for number in range(data.draw(st.integers(1, 12))):
        for batch, tokens in data.draw(st.lists(shapes, max_size=5)):
            for scheduler in (queue, reference):
                scheduler.add(work((number, batch, tokens), 0, tokens, batch))
        prompt_rows = data.draw(st.none() | st.integers(1, MAX_ROWS))
        taken = []
        for grants in (queue.take(prompt_rows), reference.take(prompt_rows)):
            taken.append([(grant.work.flow, grant.work.done, grant.tokens) for grant in grants])
            for grant in grants:
                grant.work.done += grant.tokens
        assert taken[0] == taken[1]


def test_ten_identities_or_a_hundred_sessions_take_nothing_from_those_who_pay() -> None:
    paid = {}
    for free in (1, 10, 100):
        crowd = Crowd(FairQueue(max_rows=12), token)
        crowd.join(0, free)
        for weight in WEIGHTS:
            crowd.join(weight, 10)
        crowd.run(2000)
        paid[free] = 1 - crowd.shares()[0]
        sessions = [crowd.got[0, number] for number in range(free)]
        assert max(sessions) - min(sessions) <= 1, "they only share what is theirs"
    assert paid[100] == pytest.approx(paid[10], rel=0.01)
    assert paid[100] >= 0.88


def test_what_nobody_paid_for_is_not_charged() -> None:
    crowd = Crowd(FairQueue(max_rows=12), token)
    crowd.join(0, 20)
    crowd.join(1, 1)  # it leaves nearly all to them
    crowd.run(2000)
    assert crowd.shares()[0] > 0.9
    crowd.got.clear()
    for weight in (2, 4, 8):
        crowd.join(weight, 20)
    crowd.run(500)
    assert 0.08 <= crowd.shares()[0] <= 0.12


@pytest.mark.parametrize("late", [0, 1])
def test_no_free_session_starves_whatever_it_wants(late: int) -> None:
    sizes = (1, 1, 5, 40, 300)
    crowd = Crowd(
        FairQueue(max_rows=12), lambda flow, weight: work(flow, weight, 1 if weight else sizes[flow[1] % 5]), late
    )
    crowd.join(0, 10)
    for weight in WEIGHTS:
        crowd.join(weight, 10)
    crowd.run(4000, spare_rows=0)
    finished = Counter(grant.work.flow for grants in crowd.iterations for grant in grants if grant.work.weight == 0)
    assert all(finished[0, number] > 10 for number in range(10))
    assert 0.08 <= crowd.shares()[0] <= 0.12


@pytest.mark.parametrize("batch", [1, 4, 300])
def test_a_free_step_of_many_rows_waits_for_its_turn_and_gets_it(batch: int) -> None:
    crowd = Crowd(FairQueue(), lambda flow, weight: work(flow, weight, 1 if weight else 100, 1 if weight else batch))
    crowd.join(8, 4)
    crowd.join(0, 1)
    crowd.run(10_000, spare_rows=0)
    assert 0.05 <= crowd.shares()[0] <= 0.15


@pytest.mark.parametrize("tokens", [1, 100])
def test_a_free_step_of_many_rows_does_not_slip_in_while_those_who_pay_are_away(tokens: int) -> None:
    def step(flow: Hashable, weight: int) -> Work:
        return work(flow, weight, 1 if weight else tokens, 1 if weight else 300)

    crowd = Crowd(FairQueue(), step, late=1)
    crowd.join(8, 1)  # in every other iteration
    crowd.join(0, 2)
    crowd.run(20_000, spare_rows=5)
    assert 0.05 <= crowd.shares()[0] <= 0.15
    assert all(grants for grants in crowd.iterations[::2]), "who pays does not wait"


def test_small_free_steps_pass_a_large_one_that_waits_for_its_turn() -> None:
    queue = FairQueue()
    queue.add(work("paid", 1))
    queue.take(8, 3)
    queue._free_due = -1e9
    queue.add(work("large", 0, batch=300))
    assert queue.take(8, 3) == []
    for number in range(9):
        queue.add(work(number, 0))
    assert [grant.work.flow for grant in queue.take(8, 3)] == [0, 1, 2, 3]
    assert queue.take(8)[0].work.flow == "large", "once nobody pays"


# Iterations


@given(st.lists(st.sampled_from((0, *WEIGHTS)), min_size=1, max_size=20), st.integers(9, 5000), st.integers(8, 512))
def test_a_prompt_never_holds_up_single_tokens(weights: list[int], tokens: int, prompt_rows: int) -> None:
    queue = FairQueue()
    queue.add(work("prompt", 8, tokens))
    steps = [work(number, weight) for number, weight in enumerate(weights)]
    for step in steps:
        queue.add(step)
    granted = {grant.work for grant in queue.take(prompt_rows)}
    assert {step for step in steps if step.weight} <= granted


@given(
    st.lists(st.sampled_from(WEIGHTS), max_size=20),
    st.lists(st.integers(1, 20) | st.integers(1, 3000), min_size=30, max_size=60),
    st.integers(1, 30),
)
def test_a_flood_of_free_sessions_makes_an_iteration_no_longer_than_the_spare_rows(
    weights: list[int], free: list[int], spare_rows: int
) -> None:
    queue = FairQueue()
    for number, tokens in enumerate(free):
        queue.add(work(("free", number), 0, tokens))
    for number, weight in enumerate(weights):
        queue.add(work(number, weight))
    grants = queue.take(8, spare_rows)
    paid = sum(grant.rows for grant in grants if grant.work.weight)
    assert sum(grant.rows for grant in grants) <= max(paid, 1) + max(spare_rows, 1)
    top = max(weights, default=0)
    assert paid >= sum(weight == top for weight in weights) * bool(top), "the heaviest are in every iteration"


def test_equal_sessions_that_pay_share_an_iteration_however_few_rows_are_to_spare() -> None:
    queue = FairQueue()
    for number in range(100):
        queue.add(work(number, 4))
    assert len(queue.take(8, 0)) == 100


def test_whoever_pays_and_is_alone_has_its_step_whole() -> None:
    queue = FairQueue()
    for tokens, batch in ((3000, 1), (8, 200)):
        queue.add(work("a", 2, tokens, batch))
        [grant] = queue.take(None, 1)
        assert grant.tokens == tokens


def test_a_session_that_ended_leaves_no_trace() -> None:
    queue = FairQueue()
    queue.add(work("a", 1))
    queue.take(8)
    queue.forget("a")
    assert not queue._flows
