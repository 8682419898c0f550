"""generate() is Transformers' own: every way of it gives through two nodes what it gives on this machine."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from nectar.errors import NoRouteError, RequestError, SessionError
from nectar_demo.processes import NodeProcess
from nectar_swarm.cachename import CACHE
from transformers import set_seed

WAYS: dict[str, dict[str, Any]] = {
    "sampling": {"do_sample": True, "temperature": 0.8, "top_p": 0.9},
    "beams": {"num_beams": 3, "do_sample": False},
    "sampled sequences": {"do_sample": True, "num_return_sequences": 3},
    "penalties": {"do_sample": False, "repetition_penalty": 1.3, "no_repeat_ngram_size": 3},
    "prompt lookup": {"do_sample": False, "prompt_lookup_num_tokens": 4},
}


@pytest.fixture(scope="module")
def remote(two_nodes: tuple[NodeProcess, NodeProcess], connect: Callable[..., Any]) -> Any:
    return connect(two_nodes[0].address)


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_generating_gives_the_local_tokens(
    way: str, remote: Any, local: Any, tokens: Callable[..., torch.Tensor]
) -> None:
    results = []
    for model in (remote, local):
        set_seed(0)
        results.append(model.generate(tokens(12, seed=3), max_new_tokens=24, **WAYS[way]))
    assert torch.equal(*results)


def test_guidance_keeps_no_past_of_its_other_text_and_is_refused_where_it_relies_on_one(
    remote: Any, local: Any, tokens: Callable[..., torch.Tensor]
) -> None:
    options = {"guidance_scale": 1.5, "negative_prompt_ids": tokens(5, seed=4), "max_new_tokens": 6, "do_sample": False}
    expected = local.generate(tokens(12, seed=3), use_cache=False, **options)
    assert torch.equal(remote.generate(tokens(12, seed=3), use_cache=False, **options), expected)
    with pytest.raises(RequestError, match="use_cache=False"):
        remote.generate(tokens(12, seed=3), **options)


def test_a_left_padded_batch_gives_the_local_tokens(
    remote: Any, local: Any, tokens: Callable[..., torch.Tensor]
) -> None:
    ids = tokens(10, batch=3)
    mask = torch.ones_like(ids)
    mask[0, :4] = mask[2, :1] = 0
    results = [
        model.generate(ids, attention_mask=mask, max_new_tokens=16, do_sample=False) for model in (remote, local)
    ]
    assert torch.equal(*results)


def test_a_plain_forward_gives_the_local_logits(remote: Any, local: Any, tokens: Callable[..., torch.Tensor]) -> None:
    with torch.no_grad():
        out = remote(tokens(20))
        assert torch.equal(out.logits, local(tokens(20)).logits)
        with pytest.raises(RequestError, match=CACHE):
            remote(tokens(1), **{CACHE: out[CACHE]})


def test_a_session_goes_on_over_several_calls_and_rolls_back_what_changed(
    remote: Any, local: Any, tokens: Callable[..., torch.Tensor]
) -> None:
    with remote.session(256) as session:
        text = remote.generate(tokens(12), session=session, max_new_tokens=8, do_sample=False)
        longer = torch.cat([text, tokens(5, seed=1)], 1)
        held = session.position
        assert held == text.shape[1] - 1
        out = remote.generate(longer, session=session, max_new_tokens=8, do_sample=False)
        assert torch.equal(out, local.generate(longer, max_new_tokens=8, do_sample=False))
        edited = torch.cat([text[:, :15], tokens(5, seed=2)], 1)
        out = remote.generate(edited, session=session, max_new_tokens=8, do_sample=False)
        assert torch.equal(out, local.generate(edited, max_new_tokens=8, do_sample=False))


def test_two_hundred_tokens_of_prompt_travel_in_pieces_and_give_the_local_logits(
    remote: Any, local: Any, tokens: Callable[..., torch.Tensor]
) -> None:
    with torch.no_grad():  # 700 KB of hidden states a link, over the size of one frame
        assert torch.equal(remote(tokens(700)).logits, local(tokens(700)).logits)


def test_what_cannot_be_sent_is_refused_at_once(remote: Any, tokens: Callable[..., torch.Tensor]) -> None:
    ids = tokens(8, batch=2)
    holes = torch.ones_like(ids)
    holes[0, 3] = 0
    with pytest.raises(RequestError, match="left"):
        remote.generate(ids, attention_mask=holes, max_new_tokens=2, do_sample=False)
    with remote.session(16) as session, pytest.raises(RequestError, match="max_length"):
        remote.generate(tokens(12), session=session, max_new_tokens=12, do_sample=False)
    with pytest.raises(SessionError, match="closed"):
        remote.generate(tokens(4), session=session, max_new_tokens=2, do_sample=False)
    with remote.session(1 << 20, patience_s=2.0) as session, pytest.raises((SessionError, NoRouteError), match="KV"):
        remote.generate(tokens(4), session=session, max_new_tokens=2, do_sample=False)
    assert remote.generate(tokens(4), max_new_tokens=2, do_sample=False).shape == (1, 6)
