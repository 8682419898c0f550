"""A model that is known by its name on a hub is served and used as one that lies in a folder."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from nectar import AutoDistributedModelForCausalLM, Connection
from nectar_swarm.folder import LocalFolder
from nectar_swarm.peeraddress import PeerAddress
from nectar_swarm.source import open_source

from tests.families.swarm import running
from tests.hubserver import REPOSITORY, HubServer, access, let_ask_hubs, serve
from tests.integration.conftest import Tokens


@pytest.fixture
def hub(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub with the tiny Llama, of which nothing was fetched yet."""
    let_ask_hubs(tmp_path / "hub-cache", monkeypatch)
    monkeypatch.setenv("NECTAR_CACHE", str(tmp_path / "cache"))
    with serve(tiny_llama) as server:
        monkeypatch.setattr("nectar.model.HubAccess", partial(access, server))
        yield server


def test_a_node_and_a_client_fetch_their_own_shards_alone_and_give_the_models_tokens(
    hub: HubServer, tiny_llama: Path, tmp_path: Path, local: Any, tokens: Tokens
) -> None:
    weight_map = json.loads((tiny_llama / "model.safetensors.index.json").read_text())["weight_map"]
    in_blocks = tuple(f"model.layers.{block}." for block in range(5))
    of_the_node = {shard for key, shard in weight_map.items() if key.startswith(in_blocks)}
    of_the_client = {shard for key, shard in weight_map.items() if ".layers." not in key}
    with running(open_source(REPOSITORY, hub=access(hub)), "0:5", tmp_path / "first.key") as node:
        assert set(hub.fetched()) == of_the_node < set(weight_map.values())
        peer = PeerAddress(node.peer, node.addresses)
        with running(LocalFolder(tiny_llama), "5:8", tmp_path / "second.key", peer):
            connection = Connection.open([peer])
            remote = AutoDistributedModelForCausalLM.from_pretrained(REPOSITORY, connection=connection)
            out = remote.generate(tokens(12), max_new_tokens=8, do_sample=False)
            connection.close()
    assert torch.equal(out, local.generate(tokens(12), max_new_tokens=8, do_sample=False))
    fetched = of_the_node | of_the_client
    assert {name: hub.requests[name] for name in hub.fetched()} == dict.fromkeys(fetched, 1)
