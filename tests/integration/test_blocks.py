"""The blocks of a model by themselves, over two real nodes: slices, hidden states of each, routes that one chooses."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from nectar.errors import ChosenRouteError, RequestError
from nectar_demo.processes import NodeProcess
from torch import nn

Tokens = Callable[..., torch.Tensor]
States = tuple[torch.Tensor, ...]
Nodes = tuple[NodeProcess, NodeProcess]
NOISE = 1e-3  # of sums in another order


@pytest.fixture(scope="module")
def remote(two_nodes: Nodes, connect: Callable[..., Any]) -> Any:
    return connect(two_nodes[0].address)


@pytest.fixture(scope="module")
def states(local: Any, tokens: Tokens) -> States:
    """What goes into each block of the whole model, and what comes out after its norm."""
    with torch.no_grad():
        hidden: States = local(tokens(10), output_hidden_states=True).hidden_states
    return hidden


def test_every_slice_gives_what_these_blocks_of_the_whole_model_give(remote: Any, states: States) -> None:
    assert len(remote.blocks) == 8
    for start, stop in [(0, 1), (2, 5), (4, 6), (0, 7), (-4, -1)]:
        part = remote.blocks[start:stop]
        assert torch.equal(part(states[start % 8]), states[stop % 8])
        assert len(part) == stop - start
    assert torch.equal(remote.blocks[2:][1:4][-1](states[5]), states[6])
    one_by_one = nn.Sequential(*remote.blocks[3:6])
    assert torch.equal(one_by_one(states[3]), states[6])
    assert repr(remote.blocks[2:5]) == "RemoteBlocks(2:5 of 8)"


def test_a_slice_goes_on_in_a_session(remote: Any, states: States) -> None:
    part = remote.blocks[1:6]
    with part.session(16) as session:
        outputs = [part(piece, session=session) for piece in torch.split(states[1], [7, 1, 2], 1)]
        assert session.position == 10
        assert (session.route[0].start, session.route[-1].stop) == (1, 6)
    torch.testing.assert_close(torch.cat(outputs, 1), states[6], rtol=NOISE, atol=NOISE)


def test_hidden_states_of_each_block_come_as_transformers_gives_them(
    remote: Any, states: States, tokens: Tokens
) -> None:
    with torch.no_grad():
        out = remote(tokens(10), output_hidden_states=True)
        assert len(out.hidden_states) == len(states) == 9
        assert all(map(torch.equal, out.hidden_states, states))
        *others, last_but_one, last = remote(tokens(10), output_hidden_states=[-2, 20], return_dict=False)[-1]
        assert torch.equal(last_but_one, states[-2])
        assert (others, last) == ([None] * 7, None)
        assert remote(tokens(10)).hidden_states is None


@pytest.mark.parametrize("way", [{}, {"num_beams": 2}, {"prompt_lookup_num_tokens": 3}], ids=str)
def test_generate_gives_hidden_states_of_every_token(
    way: dict[str, Any], remote: Any, local: Any, tokens: Tokens
) -> None:
    options = dict(max_new_tokens=6, do_sample=False, return_dict_in_generate=True, output_hidden_states=True, **way)
    here, there = (model.generate(tokens(6), **options) for model in (local, remote))
    assert torch.equal(here.sequences, there.sequences)
    kinds = [kind for kind in ("hidden_states", "decoder_hidden_states") if kind in here]
    for of_token, expected in zip(there[kinds[0]], here[kinds[0]], strict=True):
        torch.testing.assert_close(of_token, expected, rtol=NOISE, atol=NOISE)


def test_a_chosen_route_is_taken_and_not_changed(remote: Any, local: Any, two_nodes: Nodes, tokens: Tokens) -> None:
    first, last = two_nodes
    for border in (3, 4, 5):
        with remote.session(64, route=[(first.peer, 0, border), (last.peer, border, 8)]) as session:
            out = remote.generate(tokens(8), session=session, max_new_tokens=4, do_sample=False)
            assert [(span.peer, span.start, span.stop) for span in session.route] == [
                (first.peer, 0, border), (last.peer, border, 8),
            ]  # fmt: skip
        assert torch.equal(out, local.generate(tokens(8), max_new_tokens=4, do_sample=False))
    with remote.session(64, route=session.route) as again:  # as it was told
        remote.generate(tokens(8), session=again, max_new_tokens=2, do_sample=False)
        assert again.route == session.route
    with (
        remote.session(64, route=[(first.peer, 0, 6), (last.peer, 6, 8)], patience_s=0.5) as session,
        pytest.raises(ChosenRouteError, match="0:6"),
    ):
        remote.generate(tokens(8), session=session, max_new_tokens=2, do_sample=False)


def test_what_blocks_cannot_take_is_refused_at_once(
    remote: Any, two_nodes: Nodes, states: States, tokens: Tokens
) -> None:
    blocks = remote.blocks
    for wrong in (states[0][0], states[0][..., :5], states[0][:, :0], torch.zeros(1, 2, 257)):
        with pytest.raises(RequestError, match=r"\[batch, tokens, 256\]"):
            blocks(wrong)
    for empty in (slice(3, 3), slice(5, 2), slice(0, 8, 2), slice(None, None, -1)):
        with pytest.raises(RequestError, match="neighbours"):
            blocks[empty]
    with pytest.raises(IndexError):
        blocks[8]
    with pytest.raises(RequestError, match="must lead through blocks 0:8"):
        blocks.session(route=[(two_nodes[0].peer, 0, 5)])
    with pytest.raises(RequestError, match="peer, start, stop"):
        blocks.session(route=[two_nodes[0].peer])
    with pytest.raises(RequestError, match="attention weights"):
        remote(tokens(4), output_attentions=True)
    with remote.session(32) as session, pytest.raises(RequestError, match="output_hidden_states=True"):
        remote.generate(
            tokens(4), session=session, max_new_tokens=2, output_hidden_states=True, return_dict_in_generate=True
        )
