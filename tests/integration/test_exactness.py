"""A session's tokens through real node processes are those of the whole model: bitwise, when it is alone."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nectar_demo.processes import NodeProcess

SETTINGS = {"max_new_tokens": 48, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
NOISE = 1e-3  # of sums in another order


@pytest.fixture(scope="module")
def four_nodes(start_node: Callable[..., NodeProcess]) -> list[NodeProcess]:
    first = start_node("0:2")
    rest = [start_node(span, first, wait=False) for span in ("2:4", "4:6", "6:8")]
    return [first, *(node.wait() for node in rest)]


@pytest.fixture(scope="module", params=["one_node", "two_nodes", pytest.param("four_nodes", marks=pytest.mark.slow)])
def remote(request: pytest.FixtureRequest, connect: Callable[..., Any]) -> Any:
    nodes = request.getfixturevalue(request.param)
    nodes = [nodes] if isinstance(nodes, NodeProcess) else nodes
    model = connect(nodes[0].address)
    model.nodes = len(nodes)
    return model


def test_alone_tokens_and_logits_are_bitwise_local(
    remote: Any, local: Any, tokens: Callable[..., torch.Tensor]
) -> None:
    for seed, length in enumerate((1, 16, 200)):
        ids = tokens(length, seed)
        ours, theirs = remote.generate(ids, **SETTINGS), local.generate(ids, **SETTINGS)
        assert torch.equal(ours.sequences, theirs.sequences)
        assert torch.equal(torch.stack(ours.logits), torch.stack(theirs.logits))


def test_beside_another_session_tokens_are_local_and_logits_differ_by_float_noise(
    remote: Any, local: Any, tokens: Callable[..., torch.Tensor]
) -> None:
    busy = threading.Event()
    others: list[torch.Tensor] = []

    def second_session() -> None:
        while not busy.is_set():
            others.append(remote.generate(tokens(24, seed=9), max_new_tokens=12, do_sample=False))

    thread = threading.Thread(target=second_session)
    thread.start()
    try:
        for seed, length in enumerate((1, 16, 200)):
            ids = tokens(length, seed)
            ours, theirs = remote.generate(ids, **SETTINGS), local.generate(ids, **SETTINGS)
            assert torch.equal(ours.sequences, theirs.sequences)
            torch.testing.assert_close(torch.stack(ours.logits), torch.stack(theirs.logits), rtol=0, atol=NOISE)
    finally:
        busy.set()
        thread.join()
    expected = local.generate(tokens(24, seed=9), max_new_tokens=12, do_sample=False)
    assert others
    assert all(torch.equal(other, expected) for other in others)


def test_the_route_runs_through_every_node(remote: Any, tokens: Callable[..., torch.Tensor]) -> None:
    with remote.session(64) as session:
        remote.generate(tokens(4), session=session, max_new_tokens=2, do_sample=False)
        assert len({span.peer for span in session.route}) == remote.nodes
        assert [span.start for span in session.route] == [0, *(span.stop for span in session.route[:-1])]
        assert session.route[-1].stop == 8
