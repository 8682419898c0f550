"""A node on several devices: here two compute threads on the CPU, as they would be on two GPUs."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nectar_demo.processes import NodeProcess

Tokens = Callable[..., torch.Tensor]


@pytest.fixture(scope="module")
def node(start_node: Callable[..., NodeProcess]) -> NodeProcess:
    return start_node("0:8", options=("--device", "cpu,cpu"))


@pytest.fixture(scope="module")
def remote(node: NodeProcess, connect: Callable[..., Any]) -> Any:
    return connect(node.address)


def test_it_is_one_peer_that_names_its_devices(node: NodeProcess) -> None:
    assert node.serving["device"] == "2 × cpu"
    assert (node.serving["start"], node.serving["stop"]) == (0, 8)


@pytest.mark.parametrize("way", [{}, {"num_beams": 3}, {"prompt_lookup_num_tokens": 4}], ids=str)
def test_its_tokens_are_the_whole_models(way: dict[str, Any], remote: Any, local: Any, tokens: Tokens) -> None:
    here, there = (model.generate(tokens(40), max_new_tokens=24, do_sample=False, **way) for model in (local, remote))
    assert torch.equal(here, there)


def test_parts_of_its_span_run_on_the_devices_that_have_them(remote: Any, local: Any, tokens: Tokens) -> None:
    with torch.no_grad():
        states = local(tokens(10), output_hidden_states=True).hidden_states
    for start, stop in [(0, 4), (1, 3), (3, 6), (5, 7)]:
        assert torch.equal(remote.blocks[start:stop](states[start]), states[stop])


def test_sessions_side_by_side_each_get_their_tokens(remote: Any, local: Any, tokens: Tokens) -> None:
    outs: dict[int, torch.Tensor] = {}

    def run(seed: int) -> None:
        outs[seed] = remote.generate(tokens(5 + 9 * seed, seed), max_new_tokens=16, do_sample=False)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, out in outs.items():
        assert torch.equal(out, local.generate(tokens(5 + 9 * seed, seed), max_new_tokens=16, do_sample=False))
    assert len(outs) == len(threads)
