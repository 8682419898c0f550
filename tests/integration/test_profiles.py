"""A node that keeps its weights in 8 bits serves, and says that it does."""

from collections.abc import Callable
from typing import Any

import torch
from nectar import Connection
from nectar.census import take_census
from nectar_protocol.announcement import Profile


def test_a_node_in_8_bits_serves_and_announces_it(
    start_node: Callable[..., Any],
    connect: Callable[..., Any],
    tokens: Callable[..., torch.Tensor],
    local: Any,
) -> None:
    node = start_node(None, options=("--profile", "int8"))
    assert node.serving["profile"] == "int8"
    assert (node.serving["start"], node.serving["stop"]) == (0, node.serving["blocks"])
    remote = connect(node.address)
    logits, exact = remote(tokens(16)).logits, local(tokens(16)).logits
    assert 0 < (logits - exact).norm() < 0.3 * exact.norm()
    connection = Connection.open([node.address])
    (model,) = connection.run(take_census(connection))
    connection.close()
    assert [seen.announcement.profile for seen in model.nodes] == [Profile.INT8]
