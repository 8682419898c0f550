"""A client's place in a swarm: joined with what it is given, taken again when its p2pd dies, left for good."""

import os
import signal

import pytest
from nectar.connection import Connection
from nectar.scout import Effort
from nectar_protocol.errors import ProtocolError
from nectar_swarm.errors import UnreachableError

from tests.client.node import MODEL, Node
from tests.client.swarm import Swarm, eventually


def test_a_connection_needs_somebody_to_begin_with() -> None:
    with pytest.raises(UnreachableError, match="no initial peers"):
        Connection.open([])


@pytest.mark.parametrize("address", ["garbage", "/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/udp/1/p2p/x"])
def test_an_address_that_is_none_is_refused_before_anything_starts(address: str) -> None:
    with pytest.raises(ProtocolError):
        Connection.open([address])


def test_a_connection_may_be_closed_twice(connection: Connection) -> None:
    connection.close()
    connection.close()


def test_nodes_are_not_blamed_for_the_end_of_our_own_p2pd(connection: Connection, three: list[Node]) -> None:
    look = connection.scout.candidates
    assert len(connection.run(look(MODEL, Effort.MEET))) == 6
    host = connection._host
    assert host is not None
    os.kill(host.daemon_pid, signal.SIGKILL)
    eventually(lambda: host.ended.is_set() and all(connection.present_link(node.peer) is None for node in three))
    connection.view._aside = {node.peer: (float("inf"), 1) for node in three}
    assert len(connection.run(look(MODEL, Effort.MEET))) == 6


def test_a_dead_node_is_set_aside(swarm: Swarm, connection: Connection, three: list[Node]) -> None:
    connection.run(connection.scout.candidates(MODEL, Effort.MEET))
    swarm.kill(three[1])
    eventually(lambda: connection.view.is_aside(three[1].peer))
    assert connection.present_link(three[1].peer) is None
    assert not connection.view.is_aside(three[0].peer)
