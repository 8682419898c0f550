"""What a node chooses and says before anything is on the network."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from nectar_node.errors import DeviceError, PlacementError
from nectar_node.node import Node, NodeSettings, _in_thread
from nectar_node.speed import Speed
from nectar_protocol.announcement import MAX_SIZE, Announcement, NodeState, Profile
from nectar_protocol.identity import Identity
from nectar_swarm.directory import LIFE_MS
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


def announced(node: Node, state: NodeState = NodeState.SERVING) -> Announcement:
    return node._announcement((), 0, 3, state)


def test_without_blocks_a_node_of_an_empty_swarm_takes_the_whole_model(make_node: Callable[..., Node]) -> None:
    assert make_node()._choose([]) == (0, BLOCKS)


def test_a_node_takes_the_blocks_it_is_told(make_node: Callable[..., Node]) -> None:
    assert make_node(blocks="2:4")._choose([]) == (2, 4)


def test_a_node_takes_no_more_than_it_may(make_node: Callable[..., Node]) -> None:
    assert make_node(max_blocks=2)._choose([]) == (0, 2)


def test_a_node_takes_what_the_others_lack_and_does_not_count_itself(make_node: Callable[..., Node]) -> None:
    node = make_node(max_blocks=3)
    own = announced(node)
    other = Identity.from_seed(b"o" * 32)
    assert node._choose([own]) == (0, 3)
    assert node._choose([replace(own, node=other.public)]) == (3, 6)


def test_a_node_takes_what_fits_into_its_memory(
    make_node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(kv_tokens=1000)
    # 2 heads of 16 numbers, keys and values, 4 bytes each
    assert node._kv_bytes_per_block() == 2 * 2 * 16 * 4 * 1000
    block = 4 * max(node.anatomy.block_parameters) + node._kv_bytes_per_block()
    monkeypatch.setattr("nectar_node.node.free_bytes", lambda device: int(2.5 * block / 0.8))
    assert node._choose([]) == (0, 2)
    monkeypatch.setattr("nectar_node.node.free_bytes", lambda device: block // 2)
    with pytest.raises(PlacementError, match="not one block fits"):
        node._choose([])


def test_what_a_node_announces_is_signed_fits_and_says_what_it_serves(make_node: Callable[..., Node]) -> None:
    node = make_node(dtype="bfloat16")
    node._loaded = SimpleNamespace(speed=Speed(decode_s=0.002))
    announcement = Announcement.unpack(announced(node).pack())
    assert announcement.node == node.identity.public
    assert announcement.model == node.source.manifest.model_id
    assert (announcement.start, announcement.stop, announcement.profile) == (0, 3, Profile.BF16)
    assert announcement.decode_us == 2000
    assert len(announcement.pack()) <= MAX_SIZE


def test_a_joining_node_claims_no_speed(make_node: Callable[..., Node]) -> None:
    announcement = announced(make_node(), NodeState.JOINING)
    assert (announcement.decode_us, announcement.prefill_us) == (0, 0)


def test_every_announcement_outlives_the_one_before_even_when_the_clock_stands_or_goes_back(
    make_node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    node, now_ns = make_node(), time.time_ns()
    expiries = []
    for shift_ns in (0, 0, -5_000_000_000, 1_000_000):
        monkeypatch.setattr("nectar_node.node.time.time_ns", lambda shift_ns=shift_ns: now_ns + shift_ns)
        expiries.append(announced(node).expires_ms)
    assert expiries[0] == now_ns // 1_000_000 + LIFE_MS
    assert expiries == sorted(set(expiries))


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
    with pytest.raises(DeviceError):
        make_node(dtype="float8", key_file=tmp_path / "b.key")
    with pytest.raises(CheckpointError):
        make_node(model=str(tmp_path / "nothing"), key_file=tmp_path / "c.key")


async def test_work_in_a_thread_gives_its_result_or_its_error() -> None:
    assert await _in_thread(threading.current_thread) is not threading.current_thread()

    def fail() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        await _in_thread(fail)


async def test_work_in_a_thread_can_be_given_up() -> None:
    gate, ended = threading.Event(), threading.Event()

    def wait() -> None:
        gate.wait()
        ended.set()

    waiting = asyncio.ensure_future(_in_thread(wait))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    await asyncio.to_thread(ended.wait)
