"""Under a flood of sessions that do not pay, whoever pays goes on; and what they wait for can be seen."""

from collections import Counter
from collections.abc import Hashable

import torch
from nectar_node.speed import Speed

from tests.node.engines import Bench, Doubling

PAID = 5.0


class Steady(Speed):
    """As measured on a machine where six rows are to spare."""

    spare_rows = 6  # type: ignore[assignment]


async def test_whoever_pays_waits_for_one_short_iteration_under_a_flood_of_free_sessions() -> None:
    bench = Bench(Doubling(), Steady())
    runner = bench.runner
    came: list[int] = []
    for flow in range(50):
        bench.submit(flow, tokens=1 + flow % 8)
    for flow in range(50, 60):
        bench.submit(flow, tokens=500)
    await bench.busy()
    bench.submit("paid", value=PAID, weight=1)
    runner.allow()
    free: Counter[Hashable] = Counter()
    while len(came) < 200:
        for work, result in await bench.results(1):
            assert isinstance(result, torch.Tensor)
            if work.flow == "paid":
                bench.submit("paid", value=PAID, weight=1)
                came.append(len(runner.forwards))
            else:
                free[work.flow] += 1
                bench.submit(work.flow, tokens=work.tokens)
    bench.engine.stop()
    await bench.engine.join()
    forwards = runner.forwards[1:]
    assert max(map(sum, forwards)) <= 1 + Steady.spare_rows
    assert free.keys() >= set(range(50)), "they all go on"
    served = [at for at, values in enumerate(runner.values) if PAID in values]
    assert all(at - before <= 1 for before, at in zip(came, served[1:], strict=False))


async def test_what_free_sessions_wait_for_is_known_and_longer_while_somebody_pays(bench: Bench) -> None:
    assert bench.engine.free_wait_s == 0.0
    bench.speed.prefill_s = 0.01
    bench.submit("free", tokens=100)
    bench.submit("free", tokens=50)  # behind it
    assert bench.engine.free_wait_s == 1.5
    bench.submit("paid", tokens=1000, weight=2)
    assert bench.engine.free_wait_s == 15.0
