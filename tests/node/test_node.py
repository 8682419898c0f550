"""What a node chooses and says before anything is on the network."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nectar_node.errors import DeviceError, ProfileError
from nectar_node.node import Node, NodeSettings
from nectar_swarm.errors import KeyFileError
from nectar_swarm.folder import LocalFolder
from nectar_swarm.keyfile import hold_key

BLOCKS = 6


@pytest.fixture(autouse=True)
def _torch_is_left_as_it_was() -> Iterator[None]:
    """A node turns gradients off for its whole process, and may set the threads."""
    threads = torch.get_num_threads()
    yield
    torch.set_grad_enabled(True)
    torch.set_num_threads(threads)


@pytest.fixture
def settings(checkpoint_folder: Callable[[str], Path], tmp_path: Path) -> NodeSettings:
    return NodeSettings(LocalFolder(checkpoint_folder("llama")), tmp_path / "node.key", "bee", "0.0.1", device="cpu")


@pytest.fixture
def make_node(settings: NodeSettings) -> Callable[..., Node]:
    return lambda **changes: Node(replace(settings, **changes), lambda serving: None)


def test_a_folders_path_stays_on_this_machine(make_node: Callable[..., Node], settings: NodeSettings) -> None:
    assert make_node().model_name == settings.source.folder.name


async def test_two_nodes_cannot_run_with_one_key(make_node: Callable[..., Node], settings: NodeSettings) -> None:
    node = make_node()
    with hold_key(settings.key_file), pytest.raises(KeyFileError, match="another process runs with the key"):
        await node.run(asyncio.Event())


async def test_a_node_that_has_ended_lets_its_key_go(make_node: Callable[..., Node], settings: NodeSettings) -> None:
    stop = asyncio.Event()
    stop.set()
    await make_node().run(stop)
    hold_key(settings.key_file).close()


def test_a_node_keeps_its_key(make_node: Callable[..., Node]) -> None:
    assert make_node().identity == make_node().identity


def test_settings_that_cannot_be_met_are_refused_at_once(make_node: Callable[..., Node], tmp_path: Path) -> None:
    with pytest.raises(DeviceError):
        make_node(device="abacus", key_file=tmp_path / "a.key")
    with pytest.raises(ProfileError):
        make_node(profile="float8", key_file=tmp_path / "b.key")


async def test_a_node_that_moves_has_other_blocks_then(make_node: Callable[..., Node]) -> None:
    node, stop = make_node(), asyncio.Event()
    await node._take((0, 3), stop)
    await node._move((3, 6), stop)
    assert node._loaded is not None
    assert node._loaded.blocks == (3, 6)
    assert not node._stays


async def test_a_node_whose_new_blocks_cannot_be_loaded_has_the_old_ones_again_and_stays(
    make_node: Callable[..., Node],
) -> None:
    node, stop = make_node(), asyncio.Event()
    await node._take((0, 3), stop)
    await node._move((4, BLOCKS + 1), stop)
    assert node._loaded is not None
    assert node._loaded.blocks == (0, 3)
    assert node._stays
