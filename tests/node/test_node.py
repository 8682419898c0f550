"""What a node chooses and says before anything is on the network."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nectar_node.errors import DeviceError, PlacementError, ProfileError
from nectar_node.node import Node, NodeSettings
from nectar_protocol.announcement import Profile
from nectar_swarm.errors import CheckpointError, KeyFileError
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
    return NodeSettings(str(checkpoint_folder("llama")), tmp_path / "node.key", "bee", "0.0.1", device="cpu")


@pytest.fixture
def make_node(settings: NodeSettings) -> Callable[..., Node]:
    return lambda **changes: Node(replace(settings, **changes), lambda serving: None)


def test_a_node_has_room_for_a_small_model_and_takes_no_more_than_it_may(make_node: Callable[..., Node]) -> None:
    assert make_node()._blocks_that_fit() == BLOCKS
    assert make_node(max_blocks=2)._blocks_that_fit() == 2


def test_a_node_takes_what_fits_into_its_memory(
    make_node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(kv_tokens=1000)
    # 2 heads of 16 numbers, keys and values, 4 bytes each
    assert node._kv_bytes_per_block(torch.float32) == 2 * 2 * 16 * 4 * 1000
    block = 4 * max(node.anatomy.block_parameters) + node._kv_bytes_per_block(torch.float32)
    monkeypatch.setattr("nectar_node.node.free_bytes", lambda device: int(2.5 * block / 0.8))
    assert node._blocks_that_fit() == 2
    monkeypatch.setattr("nectar_node.node.free_bytes", lambda device: block // 2)
    with pytest.raises(PlacementError, match="not one block fits"):
        node._blocks_that_fit()


async def test_a_node_short_of_memory_keeps_its_blocks_in_fewer_bits(
    make_node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(kv_tokens=100)
    block = 2 * max(node.anatomy.block_parameters) + node._kv_bytes_per_block(torch.bfloat16)
    monkeypatch.setattr("nectar_node.node.free_bytes", lambda device: int((4.1 * block) / 0.8))
    assert make_node(kv_tokens=100).format.profile is Profile.F32  # two of six blocks
    named = make_node(kv_tokens=100, blocks="0:5")
    assert named.format.profile is Profile.INT8
    await named._take((0, 5), asyncio.Event())
    assert named._loaded is not None
    assert named._loaded.stages[0].span.profile is Profile.INT8


def test_a_folders_path_stays_on_this_machine(make_node: Callable[..., Node], settings: NodeSettings) -> None:
    assert make_node().model_name == Path(settings.model).name


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
    with pytest.raises(CheckpointError):
        make_node(model=str(tmp_path / "nothing"), key_file=tmp_path / "c.key")


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
