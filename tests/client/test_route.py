"""A route keeps what works, fills what is missing, and tells each hop no more than it must know."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar.errors import NoRoomError, NoRouteError, UntrustedError
from nectar.route import Hop, Route
from nectar.routing import Candidate, Leg
from nectar_swarm.messages import Neighbours

BLOCKS = 6
Make = Callable[..., Candidate]


@pytest.fixture
def route(candidate: Make) -> Route:
    """Three hops of two blocks each, on nodes 1 to 3, whole, in generation 1."""
    route = Route(BLOCKS)
    assert route.mend([candidate(number, 2 * number - 2, 2 * number) for number in (1, 2, 3)]) == []
    route.generation = 1
    for hop in route.hops:
        hop.opened = hop.whole = True
    return route


def spans(route: Route) -> list[tuple[int, int]]:
    return [(hop.start, hop.stop) for hop in route.hops]


def test_a_new_route_is_not_complete_and_not_opened(candidate: Make) -> None:
    route = Route(BLOCKS)
    assert not route.complete
    route.mend([candidate(1, 0, 6)])
    assert route.complete
    assert [(hop.opened, hop.whole, hop.failed) for hop in route.hops] == [(False, False, False)]


def test_mending_a_whole_route_changes_nothing(route: Route, candidate: Make) -> None:
    before = list(route.hops)
    assert route.mend([candidate(9, 0, 6, decode_s=1e-9, rtt_s=0.0)]) == []
    assert route.hops == before


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_lost_hop_is_replaced_and_the_others_stay(route: Route, candidate: Make, lost: int) -> None:
    before = list(route.hops)
    before[lost].failed = True
    assert not route.complete
    dropped = route.mend([candidate(8, 0, 6, decode_s=0.1), candidate(9, 0, 6, decode_s=0.01)])
    assert dropped == [before[lost]]
    assert route.complete
    assert spans(route) == [(0, 2), (2, 4), (4, 6)]
    assert [hop for at, hop in enumerate(route.hops) if at != lost] == [
        hop for at, hop in enumerate(before) if at != lost
    ]
    new = route.hops[lost]
    assert new.peer == candidate(9, 0, 6, decode_s=0.01).peer
    assert not new.opened
    assert not new.whole


def test_neighbouring_gaps_are_filled_as_one(route: Route, candidate: Make) -> None:
    for hop in route.hops[1:]:
        hop.failed = True
    route.mend([candidate(9, 0, 6)])
    assert spans(route) == [(0, 2), (2, 6)]


def test_a_gap_may_take_several_nodes(route: Route, candidate: Make) -> None:
    route.hops[1].failed = True
    route.mend([candidate(8, 0, 3), candidate(9, 3, 6)])
    assert spans(route) == [(0, 2), (2, 3), (3, 4), (4, 6)]


def test_when_only_a_kept_node_could_fill_the_gap_all_is_routed_anew(route: Route, candidate: Make) -> None:
    before = list(route.hops)
    before[1].failed = True
    # Node 1 turns out to serve blocks 0:4, node 3 what it always did.
    dropped = route.mend([candidate(1, 0, 4), candidate(3, 4, 6)])
    assert dropped == before
    assert spans(route) == [(0, 4), (4, 6)]
    assert not any(hop.opened for hop in route.hops)


def test_a_node_that_two_gaps_need_takes_all_of_the_route(route: Route, candidate: Make) -> None:
    before = list(route.hops)
    before[0].failed = before[2].failed = True
    assert route.mend([candidate(2, 2, 4), candidate(9, 0, 6)]) == before
    assert spans(route) == [(0, 6)]


def test_two_gaps_are_filled_by_two_nodes(route: Route, candidate: Make) -> None:
    first, kept, last = route.hops
    first.failed = last.failed = True
    fast, slow = candidate(8, 0, 6, decode_s=0.001), candidate(9, 0, 6, decode_s=0.1)
    assert route.mend([slow, fast]) == [first, last]
    assert [hop.peer for hop in route.hops] == [fast.peer, kept.peer, slow.peer]


def test_a_gap_that_nobody_fills_leaves_the_route_as_it_was(route: Route, candidate: Make) -> None:
    before = list(route.hops)
    before[1].failed = True
    with pytest.raises(NoRouteError) as lost:
        route.mend([candidate(1, 0, 2), candidate(9, 3, 6)])
    assert lost.value.missing == ((2, 3),)
    assert route.hops == before


def test_a_failed_hops_node_may_be_taken_again_if_it_is_back(route: Route, candidate: Make) -> None:
    failed = route.hops[1]
    failed.failed = True
    assert route.mend([candidate(2, 2, 4)]) == [failed]
    assert route.hops[1].peer == failed.peer
    assert not route.hops[1].opened


# Room


def test_a_node_without_room_for_the_session_is_not_taken(candidate: Make) -> None:
    route = Route(BLOCKS)
    route.positions = 100
    full = replace(candidate(1, 0, 6, decode_s=0.01), kv_free=99)
    roomy = replace(candidate(2, 0, 6, decode_s=9.0), kv_free=100)
    assert not route.filled_by([full])
    assert route.filled_by([full, roomy])
    route.mend([full, roomy])
    assert [hop.peer for hop in route.hops] == [roomy.peer]


def test_a_node_without_room_is_taken_when_there_is_no_other(candidate: Make) -> None:
    route = Route(BLOCKS)
    route.positions = 100
    full, other = replace(candidate(1, 0, 6), kv_free=99), candidate(2, 0, 3)
    route.mend([full, other])
    assert [hop.peer for hop in route.hops][-1] == full.peer


PAID = {"kv_total": 100, "ledger": b"l" * 32}


def test_who_pays_may_have_what_others_have_on_a_node_that_takes_holds(candidate: Make) -> None:
    route = Route(BLOCKS, pays=True)
    route.positions = 100
    full = replace(candidate(1, 0, 6, decode_s=0.01), kv_free=0, **PAID)
    roomy = replace(candidate(2, 0, 6, decode_s=9.0), kv_free=100, **PAID)
    assert route.filled_by([full])
    route.mend([full, roomy])
    assert [hop.peer for hop in route.hops] == [full.peer]


@pytest.mark.parametrize(("pays", "changes"), [(False, {}), (True, {"ledger": b""}), (True, {"kv_total": 99})])
def test_nobody_makes_way_for_who_does_not_pay_nor_where_no_holds_are_taken_nor_beyond_what_there_is(
    candidate: Make, pays: bool, changes: dict[str, object]
) -> None:
    route = Route(BLOCKS, pays=pays)
    route.positions = 100
    full = replace(candidate(1, 0, 6, decode_s=0.01), kv_free=0, **(PAID | changes))
    roomy = replace(candidate(2, 0, 6, decode_s=9.0), kv_free=100, **PAID)
    assert not route.filled_by([full])
    route.mend([full, roomy])
    assert [hop.peer for hop in route.hops] == [roomy.peer]


def test_of_equal_nodes_who_pays_takes_one_where_nobody_must_make_way(candidate: Make) -> None:
    full = replace(candidate(1, 0, 6), kv_free=0, **PAID)
    roomy = replace(candidate(2, 0, 6), kv_free=100, **PAID)
    for _ in range(20):
        route = Route(BLOCKS, pays=True)
        route.positions = 100
        route.mend([full, roomy])
        assert [hop.peer for hop in route.hops] == [roomy.peer]


def test_what_the_session_holds_on_a_node_counts_as_room_there(route: Route, candidate: Make) -> None:
    route.positions = 100
    route.hops[1].failed = True
    wide = replace(candidate(1, 0, 4), kv_free=0)  # the first hop's node, where the session lies already
    elsewhere = candidate(3, 4, 6)
    assert route.filled_by([wide, elsewhere])
    route.mend([wide, elsewhere])
    assert spans(route) == [(0, 4), (4, 6)]


def test_busy_nodes_are_not_asked_again_and_the_error_says_how_full_they_are(route: Route, candidate: Make) -> None:
    before = list(route.hops)
    route.positions = 100
    route.hops[1].failed = True
    busy = replace(candidate(9, 1, 5), kv_free=7, busy_from=0)
    with pytest.raises(NoRoomError, match=f"serves blocks 2:4 .*: 100 positions .* free are 7 on {busy.peer[-6:]}"):
        route.mend([candidate(1, 0, 2), busy, candidate(3, 4, 6)])
    assert route.hops == before
    assert not route.filled_by([busy])


# Trust


@given(st.integers(0, 1 << 32))
def test_whatever_fails_the_ends_stay_on_trusted_peers_or_the_repair_is_refused(candidate: Make, seed: int) -> None:
    dice = random.Random(seed)
    nodes = []
    for number in range(8):
        start = dice.randrange(BLOCKS)
        nodes.append(candidate(number, start, dice.randint(start + 1, BLOCKS), decode_s=dice.uniform(0.01, 1.0)))
    trusted = frozenset(node.peer for node in dice.sample(nodes, 4))
    route = Route(BLOCKS, trusted)
    for _ in range(4):
        living = dice.sample(nodes, dice.randint(4, 8))
        for hop in route.hops:
            hop.opened = True
            hop.failed = hop.peer not in {node.peer for node in living} or dice.random() < 0.3
        before = list(route.hops)
        try:
            route.mend(living)
        except NoRouteError:
            assert not route.filled_by(living)
            assert route.hops == before
            continue
        assert route.hops[0].peer in trusted
        assert route.hops[-1].peer in trusted
        assert [block for hop in route.hops for block in range(hop.start, hop.stop)] == list(range(BLOCKS))


def test_a_repair_that_only_strangers_could_do_is_refused(candidate: Make) -> None:
    mine = [candidate(1, 0, 2), candidate(2, 4, 6)]
    route = Route(BLOCKS, frozenset(node.peer for node in mine))
    route.mend([*mine, candidate(3, 0, 6)])
    assert [hop.peer for hop in route.hops] == [mine[0].peer, candidate(3, 0, 6).peer, mine[1].peer]
    route.hops[2].failed = True
    with pytest.raises(UntrustedError, match="no trusted peer serves blocks 5:6"):
        route.mend([mine[0], candidate(3, 0, 6), candidate(4, 4, 6)])


def test_a_trusted_peer_that_is_busy_is_not_said_to_be_missing(candidate: Make) -> None:
    mine = replace(candidate(1, 0, 6), busy_from=0, kv_free=0)
    with pytest.raises(NoRoomError, match=f"0 on {mine.peer[-6:]}"):
        Route(BLOCKS, frozenset({mine.peer})).mend([mine, candidate(2, 0, 6)])


# Places


def test_every_hop_is_told_its_neighbours(route: Route) -> None:
    first, second, third = route.hops
    assert route.places(answered=7) == [
        Neighbours(1, None, second.peer, second.addresses, sent=7, settled=7),
        Neighbours(1, first.peer, third.peer, third.addresses, sent=7, settled=7),
        Neighbours(1, second.peer, None, (), sent=7, settled=7),
    ]


def test_a_hop_that_is_not_whole_is_sent_everything_by_the_one_before(route: Route) -> None:
    route.hops[1].whole = False
    assert [place.sent for place in route.places(answered=7)] == [0, 7, 7]
    route.hops[2].whole = False
    assert [place.sent for place in route.places(answered=7)] == [0, 0, 7]


def test_a_replay_that_has_begun_is_merged_as_it_was_until_its_receiver_is_whole(route: Route) -> None:
    route.hops[1].whole = route.hops[1].opened = False
    assert [place.settled for place in route.places(answered=7)] == [7, 7, 7]
    route.hops[1].opened = True
    assert [(place.sent, place.settled) for place in route.places(answered=8)] == [(0, 7), (8, 7), (8, 7)]
    route.hops[1].whole = True
    assert [(place.sent, place.settled) for place in route.places(answered=9)] == [(9, 9)] * 3


def test_what_the_client_has_been_answered_is_not_sent_to_it_again(route: Route) -> None:
    for hop in route.hops:
        hop.whole = False
    assert route.places(answered=7)[-1].sent == 7


def test_a_pair_that_cannot_meet_meets_through_the_client(route: Route) -> None:
    first, second, third = route.hops
    route.relayed.add((first.peer, second.peer))
    places = route.places(answered=3)
    assert (places[0].prev, places[0].next, places[0].next_addresses) == (None, None, ())
    assert (places[1].prev, places[1].next) == (None, third.peer)
    assert (places[2].prev, places[2].next) == (second.peer, None)
    route.relayed = {(second.peer, first.peer)}  # the other way round is another matter
    assert route.places(answered=3)[0].next == second.peer


def test_a_relayed_successor_that_is_not_whole_is_still_sent_everything(route: Route) -> None:
    first, second, _ = route.hops
    route.relayed.add((first.peer, second.peer))
    second.whole = False
    assert [place.sent for place in route.places(answered=3)] == [0, 3, 3]


def test_hops_are_whole_once_their_proof_is_answered(route: Route) -> None:
    old, new = route.hops[0], route.hops[1]
    new.whole = False
    route.prove_by(5)
    assert old.proof == 0
    assert route.settle(4) == []
    assert not new.whole
    assert route.settle(6) == [new]
    assert new.whole
    assert route.settle(7) == []


def test_a_hop_without_a_proof_never_becomes_whole(route: Route) -> None:
    new = route.hops[1]
    new.whole = False
    route.settle(1_000)
    assert not new.whole


def test_a_hop_is_found_by_its_peer(route: Route, candidate: Make) -> None:
    assert route.hop(route.hops[1].peer) is route.hops[1]
    assert route.hop(candidate(9, 0, 6).peer) is None
    leg = Leg(candidate(9, 0, 6), 1, 4)
    assert (Hop.of(leg).peer, Hop.of(leg).start, Hop.of(leg).stop) == (leg.candidate.peer, 1, 4)
