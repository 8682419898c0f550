"""A node that lies to a client costs it a bounded time, and changes nothing but that node's own place."""

import asyncio
from collections.abc import Callable

import pytest
import torch
from nectar import keeper as keeper_module
from nectar import session as session_module
from nectar.errors import SessionError
from nectar.session import Session
from nectar_protocol.identity import Identity, PeerID
from nectar_swarm.frames import Kind
from nectar_swarm.messages import Error, ErrorCode, Routed, Step

from tests.client.node import BATCH, BLOCKS, WIDTH, Node
from tests.client.swarm import Run, Swarm

NOBODY = Identity.from_seed(b"x" * 32).peer_id
LIES = 200


def lying(node: Node, lie: Callable[[], None]) -> Callable[[Step], None]:
    """Lies again and again, and then computes as it should."""

    def compute(step: Step) -> None:
        for _ in range(LIES):
            lie()
        node.run(step)

    return compute


@pytest.mark.parametrize("code", [ErrorCode.LOST, ErrorCode.UNREACHABLE])
def test_tales_of_neighbours_that_a_node_does_not_have_are_ignored(
    three: list[Node], session: Session, code: ErrorCode
) -> None:
    run, first = Run(session), three[0]
    run.step(2)
    spans = session.route

    def tell(peer: PeerID) -> Callable[[], None]:
        assert first.place is not None
        return lambda: first.tell(Error(code, "gone", first.place.generation if first.place else 0, peer))

    for peer in (NOBODY, three[2].peer, first.peer):
        first.compute = lying(first, tell(peer))
        run.step(1)
    assert session.route == spans
    assert session.repairs == []
    assert session._keeper.route.relayed == set()


def test_a_place_that_was_never_given_cannot_be_confirmed(three: list[Node], session: Session) -> None:
    run, first = Run(session), three[0]
    first.compute = lying(first, lambda: first.send(Kind.ROUTED, Routed(2**32 - 1).pack()))
    run.step(2)
    route = session._keeper.route
    assert all(hop.routed <= route.generation for hop in route.hops)
    three[1].dies_at = 2
    run.step(1)


def test_a_node_that_breaks_the_route_without_end_ends_the_step(
    swarm: Swarm, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "MAX_REPAIRS", 5)
    only = swarm.nodes[1]
    swarm.run(only.serve(0, BLOCKS))

    def sorry() -> None:
        only.place = None
        only.tell(Error(ErrorCode.FAILED, "so sorry"))

    def fail(step: Step) -> None:
        asyncio.get_running_loop().call_later(0.1, sorry)  # once its place is confirmed

    only.compute = fail
    with pytest.raises(SessionError, match=r"the route broke 5 times in one step; last: .*so sorry"):
        session.step(torch.zeros(BATCH, 1, WIDTH), 0)
    assert only.opened == 5
    only.compute = only.run
    session.step(torch.zeros(BATCH, 1, WIDTH), 0)


def test_a_node_that_claims_to_compute_for_ever_is_waited_for_no_longer_than_one_that_may_be_hung(
    three: list[Node], session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "HUNG_MS", 500)
    monkeypatch.setattr(session_module, "STALL_CHECK_S", 0.1)
    monkeypatch.setattr(three[0].peers, "_busy_ms", lambda: 1000)
    three[0].compute = lambda step: None
    with pytest.raises(SessionError, match=r"no answer for .* though all nodes of the route live"):
        session.step(torch.zeros(BATCH, 1, WIDTH), 0)
