"""Whatever happens to the nodes of a session's route, its outputs are those of an undisturbed run."""

import threading
from collections.abc import Callable

import pytest
import torch
from nectar import keeper as keeper_module
from nectar.errors import NoRouteError
from nectar.session import Session
from nectar_swarm.messages import Error, ErrorCode, Step

from tests.client.node import BATCH, WIDTH, Node
from tests.client.swarm import HANGS_S, Run, Swarm, eventually


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "RETRY_S", 0.01)


@pytest.mark.parametrize("lost", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)])
def test_nodes_that_die_between_steps_are_replaced(
    swarm: Swarm, three: list[Node], session: Session, lost: tuple[int, ...]
) -> None:
    run = Run(session)
    for step in ((5,), (1,), (2, 1), (1, 0, (1, 0)), (1,)):
        run.step(*step)
    before = session.route
    swarm.kill(*(three[at] for at in lost))
    for step in ((1,), (1, 2), (1, 0, (1, 1)), (3,)):
        run.step(*step)
    changed = [at for at in range(3) if before[at] != session.route[at]]
    assert tuple(changed) == lost
    assert session.repairs[0].before == before
    assert session.repairs[-1].after == session.route
    assert session.repairs[0].lost


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("dies_at", [1, 2, 4])
def test_a_node_that_dies_in_a_step_is_replaced_within_it(
    three: list[Node], session: Session, at: int, dies_at: int
) -> None:
    three[at].dies_at = dies_at
    run = Run(session)
    for step in ((5,), (1,), (2, 1), (1, 0, (1, 0)), (1,), (1,)):
        run.step(*step)
    assert three[at].peer not in {span.peer for span in session.route}


def lost(node: Node, successor: Node) -> Error:
    assert node.place is not None
    return Error(ErrorCode.LOST, "its link ended", node.place.generation, successor.peer)


def test_a_neighbour_that_hears_of_a_death_first_does_not_make_it_two_repairs(
    swarm: Swarm, three: list[Node], session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "MISSED_S", HANGS_S)
    run = Run(session)
    run.step(3)
    swarm.call(three[0].tell, lost(three[0], three[1]))
    eventually(lambda: session._keeper.broken)
    dies = threading.Timer(0.1, swarm.kill, three[1:2])
    dies.start()
    run.step(1)
    dies.join()
    assert session._keeper.route.generation == 2
    assert session.route[1].peer != three[1].peer


def test_neighbours_that_lost_only_their_link_make_another(
    swarm: Swarm, three: list[Node], session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "MISSED_S", 0.01)
    run = Run(session)
    run.step(3)
    before = session.route
    swarm.call(three[0].tell, lost(three[0], three[1]))
    eventually(lambda: session._keeper.broken)
    run.step(1)
    assert session.route == before
    assert session._keeper.route.generation == 2


def test_a_replacement_that_dies_too_is_replaced(swarm: Swarm, three: list[Node], session: Session) -> None:
    twin, third = swarm.nodes[4], swarm.nodes[6]
    swarm.run(third.serve(2, 4, decode_us=50_000_000))
    twin.dies_at = 1
    run = Run(session)
    run.step(5)
    run.step(1)
    swarm.kill(three[1])
    run.step(1)
    run.step(1)
    assert session.route[1].peer == third.peer


def test_a_leaving_node_is_left_without_a_break(swarm: Swarm, three: list[Node], session: Session) -> None:
    run = Run(session)
    run.step(3)
    three[1].refuses = ErrorCode.LEAVING
    swarm.call(three[1].tell, Error(ErrorCode.LEAVING, "this node is about to leave"))
    eventually(lambda: session._keeper.route.hops[1].leaving)
    run.step(1)
    assert session.route[1].peer != three[1].peer
    eventually(lambda: three[1].place is None)
    run.step(1)


def test_a_leaving_node_that_nobody_can_replace_is_used_until_it_goes(
    swarm: Swarm, three: list[Node], session: Session
) -> None:
    swarm.kill(swarm.nodes[4])
    run = Run(session)
    run.step(3)
    three[1].refuses = ErrorCode.LEAVING
    swarm.call(three[1].tell, Error(ErrorCode.LEAVING, "this node is about to leave"))
    eventually(lambda: session._keeper.route.hops[1].leaving)
    run.step(1)
    assert session.route[1].peer == three[1].peer


@pytest.mark.parametrize(
    "spoil",
    [
        lambda step: b"garbage",
        lambda step: Step(step.first, step.last, 0, torch.zeros(BATCH, 1, WIDTH + 1)).pack(),
        lambda step: Step(step.first, step.last, 0, step.hidden.half()).pack(),
        lambda step: Step(step.first, step.last, 0, step.hidden * float("nan")).pack(),
        lambda step: Step(step.first, step.last, 0, step.hidden * float("inf")).pack(),
    ],
    ids=["garbage", "shape", "dtype", "nan", "infinity"],
)
def test_a_node_that_answers_nonsense_is_replaced(
    three: list[Node], session: Session, spoil: Callable[[Step], bytes]
) -> None:
    run = Run(session)
    run.step(3)
    three[2].spoil = spoil
    run.step(1)
    assert session.route[2].peer != three[2].peer


def test_blocks_that_nobody_serves_are_named_and_the_session_goes_on_when_somebody_does(
    swarm: Swarm, three: list[Node], session: Session
) -> None:
    run = Run(session)
    run.step(4)
    swarm.kill(swarm.nodes[4], three[1])
    session.patience_s = 2.0
    with pytest.raises(NoRouteError, match=r"nobody serves blocks 2:4 .*waited 2 s; lost: ") as lost:
        session.step(torch.zeros(BATCH, 1, WIDTH), 4)
    assert lost.value.missing == ((2, 4),)
    swarm.run(swarm.nodes[6].serve(1, 5))
    session.patience_s = 30.0
    run.step(1)
    run.step(1)
