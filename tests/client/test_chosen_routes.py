"""Parts of a model, and routes that the user chose: these nodes, these blocks, and no others."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from nectar.errors import ChosenRouteError, NoRoomError, NoRouteError, RequestError, UntrustedError
from nectar.repair import Span
from nectar.route import Route
from nectar.routing import Candidate
from nectar_protocol.identity import PeerID

BLOCKS = 6
Make = Callable[..., Candidate]


def spans(route: Route) -> list[tuple[int, int]]:
    return [(hop.start, hop.stop) for hop in route.hops]


def test_a_part_is_routed_through_no_other_blocks(candidate: Make) -> None:
    route = Route(BLOCKS, part=range(1, 5))
    nodes = [candidate(1, 0, 3), candidate(2, 3, 6)]
    assert route.filled_by(nodes)
    assert not route.filled_by(nodes[:1])
    route.mend(nodes)
    assert spans(route) == [(1, 3), (3, 5)]
    route.hops[0].failed = True
    route.mend([candidate(3, 1, 6), nodes[1]])
    assert spans(route) == [(1, 3), (3, 5)]
    with pytest.raises(NoRouteError) as missing:
        Route(BLOCKS, part=range(1, 5)).mend([candidate(1, 2, 6)])
    assert missing.value.missing == ((1, 2),)


@pytest.mark.parametrize(("part", "needed"), [(range(2, 4), False), (range(0, 4), True), (range(2, 6), True)])
def test_trust_is_about_the_ends_of_the_model_not_of_a_part(candidate: Make, part: range, needed: bool) -> None:
    stranger = candidate(1, 0, 6)
    route = Route(BLOCKS, frozenset({candidate(2, 0, 6).peer}), part=part)
    assert route.filled_by([stranger]) is not needed
    if needed:
        with pytest.raises(UntrustedError):
            route.mend([stranger])
    else:
        route.mend([stranger])
        assert spans(route) == [(2, 4)]


def test_a_chosen_route_takes_the_nodes_it_names_and_no_others(candidate: Make) -> None:
    slow, fast, other = candidate(1, 0, 6, decode_s=9.0), candidate(2, 0, 6), candidate(3, 0, 6)
    chosen = [Span(slow.peer, 0, 4), Span(fast.peer, 4, 6)]
    route = Route(BLOCKS, chosen=chosen)
    route.mend([slow, fast, other])
    assert [(hop.peer, hop.start, hop.stop) for hop in route.hops] == [(s.peer, s.start, s.stop) for s in chosen]
    route.hops[0].failed = True
    assert not route.filled_by([fast, other])
    with pytest.raises(ChosenRouteError, match="0:4") as missing:
        route.mend([fast, other])
    assert missing.value.missing == ((0, 4),)
    route.mend([slow])
    assert spans(route) == [(0, 4), (4, 6)]


def test_a_chosen_node_that_serves_too_little_is_missing(candidate: Make) -> None:
    node = candidate(1, 0, 3)
    with pytest.raises(ChosenRouteError):
        Route(BLOCKS, chosen=[Span(node.peer, 0, 6)]).mend([node, candidate(2, 0, 6)])


def test_a_chosen_node_that_is_full_is_named_as_full(candidate: Make) -> None:
    full = replace(candidate(1, 0, 6), kv_free=1, busy_from=0)
    with pytest.raises(NoRoomError):
        Route(BLOCKS, chosen=[Span(full.peer, 0, 6)]).mend([full])


@pytest.mark.parametrize(
    "bounds", [[(0, 3)], [(0, 3), (2, 6)], [(1, 6)], [(0, 3), (3, 3), (3, 6)], [(0, 7)], [(3, 6), (0, 3)]]
)
def test_what_does_not_lead_through_the_part_is_no_route(candidate: Make, bounds: list[tuple[int, int]]) -> None:
    chosen = [Span(candidate(number, 0, 6).peer, *bound) for number, bound in enumerate(bounds, 1)]
    with pytest.raises(RequestError, match="0:6"):
        Route(BLOCKS, chosen=chosen)


def test_a_route_names_each_node_once_and_by_its_peer_id(candidate: Make) -> None:
    peer = candidate(1, 0, 6).peer
    with pytest.raises(RequestError, match="once"):
        Route(BLOCKS, chosen=[Span(peer, 0, 3), Span(peer, 3, 6)])
    with pytest.raises(RequestError, match="12D3KooW"):
        Route(BLOCKS, chosen=[Span(PeerID("somebody"), 0, 6)])
