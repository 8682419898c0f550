"""A node that keeps its weights in 8 bits serves, and says that it does."""

import sys
from collections.abc import Callable
from typing import Any

import psutil
import pytest
import torch
from nectar import Connection
from nectar.census import take_census
from nectar_demo.processes import NodeProcess
from nectar_protocol.announcement import Profile


@pytest.fixture(scope="module")
def node(start_node: Callable[..., NodeProcess]) -> NodeProcess:
    return start_node(None, options=("--profile", "int8"))


def test_a_node_in_8_bits_serves_and_announces_it(
    node: NodeProcess, connect: Callable[..., Any], tokens: Callable[..., torch.Tensor], local: Any
) -> None:
    assert node.serving["profile"] == "int8"
    assert (node.serving["start"], node.serving["stop"]) == (0, node.serving["blocks"])
    remote = connect(node.address)
    logits, exact = remote(tokens(16)).logits, local(tokens(16)).logits
    assert 0 < (logits - exact).norm() < 0.3 * exact.norm()
    connection = Connection.open([node.address])
    (model,) = connection.run(take_census(connection))
    connection.close()
    assert [seen.announcement.profile for seen in model.nodes] == [Profile.INT8]


@pytest.mark.skipif(sys.platform != "linux", reason="a process's libraries are read from /proc")
def test_full_precision_does_without_bitsandbytes(one_node: NodeProcess, node: NodeProcess) -> None:
    def loads_it(one: NodeProcess) -> bool:
        return any("bitsandbytes" in library.path for library in psutil.Process(one.process.pid).memory_maps())

    assert (loads_it(one_node), loads_it(node)) == (False, True)
