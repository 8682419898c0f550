"""A session's steps: their outputs are those of the whole model, and what cannot be done is refused before it is."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from nectar import session as session_module
from nectar.connection import Connection
from nectar.errors import NoRoomError, NoRouteError, RequestError, SessionError, UntrustedError
from nectar.route import Route
from nectar.session import Session
from nectar_swarm.messages import Error, ErrorCode

from tests.client.node import BATCH, BLOCKS, MODEL, WIDTH, Node
from tests.client.swarm import Run, Swarm, eventually


def test_steps_run_through_the_cheapest_nodes_until_the_session_is_closed(
    swarm: Swarm, three: list[Node], session: Session
) -> None:
    assert session.route == ()
    with session:
        run = Run(session)
        for tokens in (5, 1, 1):
            run.step(tokens)
        spans = [(span.peer, span.start, span.stop) for span in session.route]
        assert spans == [(node.peer, 2 * at, 2 * at + 2) for at, node in enumerate(three)]
        assert [node.opened for node in swarm.nodes] == [1, 1, 1, 0, 0, 0, 0]
    eventually(lambda: all(node.place is None for node in three))
    assert session.repairs == []


def test_nodes_that_cannot_meet_are_joined_through_the_client(three: list[Node], session: Session) -> None:
    three[0].unreachable.add(three[1].peer)
    run = Run(session)
    for tokens in (3, 1, 1):
        run.step(tokens)
    assert [span.peer for span in session.route] == [node.peer for node in three]


def test_nobody_at_all_is_an_error_that_names_all_blocks(session: Session) -> None:
    session.patience_s = 1.0
    with pytest.raises(NoRouteError) as lost:
        session.step(torch.zeros(BATCH, 1, WIDTH), 0)
    assert lost.value.missing == ((0, BLOCKS),)


# Full nodes


def test_a_busy_node_is_passed_over(three: list[Node], session: Session) -> None:
    three[1].refuses = ErrorCode.BUSY
    Run(session).step(3)
    assert session.route[1].peer != three[1].peer


def test_a_node_without_enough_free_kv_is_not_even_asked(three: list[Node], session: Session) -> None:
    three[1].kv_free = BATCH * session.max_length - 1
    three[0].kv_free = BATCH * session.max_length
    Run(session).step(3)
    assert [span.peer == node.peer for span, node in zip(session.route, three, strict=True)] == [True, False, True]
    assert three[1].opened == three[1].refused == 0


def test_who_pays_asks_a_full_node_that_takes_holds_and_another_if_nobody_makes_way_there(
    swarm: Swarm, connection: Connection
) -> None:
    full, slow = swarm.nodes[1:3]
    swarm.run(full.serve(0, BLOCKS))
    swarm.run(slow.serve(0, BLOCKS, decode_us=60_000_000))
    full.kv_free, full.ledger = 0, b"l" * 32
    for pays, refuses, taken in ((False, None, slow), (True, None, full), (True, ErrorCode.BUSY, slow)):
        full.refuses = refuses
        with Session(connection, MODEL, Route(BLOCKS, pays=pays), torch.float32, 64, 30.0) as session:
            Run(session).step(3)
            assert session.route[0].peer == taken.peer
    assert full.refused == 1


def test_when_all_are_full_the_error_says_which_and_none_is_asked_again_before_its_time(
    swarm: Swarm, session: Session
) -> None:
    full = swarm.nodes[1]
    swarm.run(full.serve(0, BLOCKS))
    full.kv_free, full.refuses, full.retry_after_ms = 5, ErrorCode.BUSY, 60_000
    session.patience_s = 3.0
    with pytest.raises(NoRoomError, match=f"serves blocks 0:6 .*: 128 positions .* 5 on {full.peer[-6:]} .*waited 3 s"):
        session.step(torch.zeros(BATCH, 1, WIDTH), 0)
    assert full.refused == 1


def test_a_busy_node_is_asked_again_when_its_time_has_come(swarm: Swarm, session: Session) -> None:
    full = swarm.nodes[1]
    swarm.run(full.serve(0, BLOCKS))
    full.refuses, full.retry_after_ms = ErrorCode.BUSY, 50
    with ThreadPoolExecutor(1) as pool:
        step = pool.submit(Run(session).step, 2)
        eventually(lambda: full.refused > 1)
        full.refuses = None
        step.result()


# Trust


def test_trusted_peers_run_both_ends_in_every_repair_or_the_step_is_refused(
    swarm: Swarm, three: list[Node], connection: Connection
) -> None:
    slow_first, slow_last, spare = swarm.nodes[3], swarm.nodes[5], swarm.nodes[6]
    swarm.run(spare.serve(0, 2, decode_us=60_000_000))
    trusted = frozenset(node.peer for node in (slow_first, slow_last, spare))
    session = Session(connection, MODEL, Route(BLOCKS, trusted), torch.float32, 64, 30.0)
    run = Run(session)
    run.step(3)
    assert [span.peer for span in session.route] == [slow_first.peer, three[1].peer, slow_last.peer]
    swarm.kill(slow_first)
    run.step(1)
    assert [span.peer for span in session.route] == [spare.peer, three[1].peer, slow_last.peer]
    swarm.kill(spare)
    session.patience_s = 2.0
    with pytest.raises(UntrustedError, match="no trusted peer serves blocks 0:1 of this model") as refused:
        session.step(torch.zeros(BATCH, 1, WIDTH), 4)
    assert refused.value.missing == ((0, 1),)


# Refusals


def test_a_refused_step_ends_with_the_nodes_reason(three: list[Node], session: Session) -> None:
    Run(session).step(2)
    three[0].compute = lambda step: three[0].tell(Error(ErrorCode.OUT_OF_RANGE, "too wide"))
    with pytest.raises(SessionError, match="refused a step: too wide"):
        session.step(torch.zeros(BATCH, 1, WIDTH), 2)


def test_a_long_step_is_cut_into_several(three: list[Node], session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "MAX_STEP_BYTES", 3 * BATCH * WIDTH * 4)
    run = Run(session)
    run.step(8)
    assert three[0].accepted == 3
    run.step(4, 1, (1, 0))
    assert three[0].accepted == 5


@pytest.mark.usefixtures("three")
def test_what_does_not_fit_is_refused_before_anything_is_sent(connection: Connection, session: Session) -> None:
    hidden = torch.zeros(BATCH, 3, WIDTH)
    with pytest.raises(RequestError, match="max_length"):
        session.step(hidden, 1)
    with pytest.raises(RequestError, match="larger max_length"):
        session.step(torch.zeros(BATCH, 65, WIDTH), 0)
    session.step(hidden, 0)
    with pytest.raises(RequestError, match="padding of a session cannot change"):
        session.step(hidden, 3, pads=(1, 0))
    with pytest.raises(RequestError, match="cannot change"):
        session.step(torch.zeros(BATCH + 1, 1, WIDTH), 3, pads=(0, 0, 0))
    with pytest.raises(RequestError, match="at least 1"):
        Session(connection, MODEL, Route(BLOCKS), torch.float32, 0)


@pytest.mark.usefixtures("three")
def test_a_closed_session_is_closed(session: Session) -> None:
    Run(session).step(2)
    session.close()
    session.close()
    with pytest.raises(SessionError, match="this session is closed"):
        session.step(torch.zeros(BATCH, 1, WIDTH), 2)
