"""Nodes and p2pds die under running sessions; the tokens stay those of an undisturbed run."""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nectar.errors import NoRouteError
from nectar_demo.processes import NodeProcess

from benchmarks.survival.plan import Campaign, plan
from benchmarks.survival.play import Result, play
from benchmarks.survival.verdict import Verdict

KILLS = 14
ERROR_WITHIN_S = 10.0


def failures(campaigns: list[Campaign], *, credits: bool = False) -> list[Result]:
    results = [result for campaign in campaigns for result in play(campaign, credits=credits)]
    assert sum(result.repaired for result in results) >= 0.8 * len(
        results
    )  # a signal may come as the last token leaves
    return [result for result in results if result.verdict is Verdict.WRONG or result.hung or result.error]


@pytest.mark.slow
def test_seeded_kills_cost_no_token_and_hang_nothing() -> None:
    assert failures(plan(KILLS, seed=0)[:1]) == []


@pytest.mark.slow
def test_seeded_kills_cost_no_token_and_hang_nothing_under_holds() -> None:
    assert failures(plan(KILLS, seed=1)[:1], credits=True) == []


def test_the_plan_holds_every_kind_of_loss_and_both_phases() -> None:
    rounds = [one for campaign in plan(200, seed=0) for one in campaign.rounds]
    shots = [shot for one in rounds for shot in one.shots]
    assert {(shot.target, shot.signal) for shot in shots} == {
        (target, name) for target in ("node", "p2pd") for name in ("SIGKILL", "SIGSTOP")
    }
    assert {one.way for one in rounds} == {"greedy", "drafts", "beams"}
    assert any(len(one.shots) == 2 for one in rounds)
    assert any(one.during_replay for one in rounds)
    assert {one.token > 0 for one in rounds} == {True, False}
    assert plan(200, seed=0) == plan(200, seed=0)


@pytest.fixture(scope="module")
def first(start_node: Callable[..., NodeProcess]) -> NodeProcess:
    return start_node("0:5")


@pytest.fixture(scope="module")
def last() -> list[NodeProcess]:
    """Nodes that serve the last blocks beside it, as tests have left them."""
    return []


@pytest.mark.slow
def test_without_a_replacement_the_error_names_the_blocks_and_a_new_node_resumes_the_session(
    first: NodeProcess,
    last: list[NodeProcess],
    start_node: Callable[..., NodeProcess],
    connect: Callable[..., Any],
    local: Any,
    tokens: Callable[..., torch.Tensor],
) -> None:
    second = start_node("5:8", first)
    remote = connect(first.address)
    with remote.session(128) as session:
        text = remote.generate(tokens(16), session=session, max_new_tokens=8, do_sample=False)
        second.kill()
        killed_s = time.monotonic()
        with pytest.raises(NoRouteError, match="5:8") as raised:
            remote.generate(text, session=session, max_new_tokens=8, do_sample=False)
        assert raised.value.missing == ((5, 8),)
        assert time.monotonic() - killed_s < ERROR_WITHIN_S
        session.patience_s = 120.0
        late = threading.Thread(target=lambda: last.append(start_node("4:8", first)))
        late.start()
        out = remote.generate(text, session=session, max_new_tokens=8, do_sample=False)
        late.join()
        assert torch.equal(out, local.generate(tokens(16), max_new_tokens=16, do_sample=False))
        assert session.repairs


def test_a_node_that_leaves_hands_its_sessions_over_and_ends_by_itself(
    first: NodeProcess,
    last: list[NodeProcess],
    start_node: Callable[..., NodeProcess],
    connect: Callable[..., Any],
    local: Any,
    tokens: Callable[..., torch.Tensor],
) -> None:
    while len(last) < 2:
        last.append(start_node("4:8", first))
    remote = connect(first.address)
    with remote.session(128) as session:
        text = remote.generate(tokens(16), session=session, max_new_tokens=8, do_sample=False)
        leaving = next(node for node in last if node.peer == session.route[-1].peer)
        leaving.process.terminate()
        out = remote.generate(text, session=session, max_new_tokens=16, do_sample=False)
        assert torch.equal(out, local.generate(tokens(16), max_new_tokens=24, do_sample=False))
        deadline_s = time.monotonic() + 60
        while leaving.alive and time.monotonic() < deadline_s:
            out = remote.generate(out, session=session, max_new_tokens=1, do_sample=False)
            time.sleep(0.2)
        assert leaving.process.wait(timeout=30) == 0
        assert session.route[-1].peer != leaving.peer


def test_the_clients_own_p2pd_may_die(
    one_node: NodeProcess, connect: Callable[..., Any], local: Any, tokens: Callable[..., torch.Tensor]
) -> None:
    remote = connect(one_node.address)
    with remote.session(128) as session:
        text = remote.generate(tokens(16), session=session, max_new_tokens=8, do_sample=False)
        os.kill(remote.connection.daemon_pid, signal.SIGKILL)
        out = remote.generate(text, session=session, max_new_tokens=8, do_sample=False)
        assert torch.equal(out, local.generate(tokens(16), max_new_tokens=16, do_sample=False))
