"""A node's life: join the swarm, choose and load blocks, serve them, announce them, leave."""

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from nectar_protocol.address import Address
from nectar_protocol.announcement import MAX_LIFE_MS, Announcement, NodeState, addresses_that_fit
from nectar_protocol.identity import Identity, PeerID, peer_id
from nectar_swarm.anatomy import Anatomy, examine, load_config
from nectar_swarm.checkpoint import Checkpoint
from nectar_swarm.directory import LIFE_MS, REFRESH_S, Directory
from nectar_swarm.host import Listen, PeerAddress
from nectar_swarm.keyfile import load_or_create_key
from nectar_swarm.membership import Membership, Place
from nectar_swarm.reachability import Reachability
from nectar_swarm.source import LocalFolder, Source, open_source
from nectar_swarm.waiting import first_of

from nectar_node.archive import Archive
from nectar_node.devices import PROFILES, choose_device, choose_dtype, describe
from nectar_node.memory import free_bytes, return_freed_memory
from nectar_node.placement import blocks_that_fit, choose_span, parse_span
from nectar_node.runner import Runner
from nectar_node.selftest import self_test
from nectar_node.service import About, Service
from nectar_node.span import SpanModel
from nectar_node.speed import Speed
from nectar_node.trial import choose_runner, measure

RETRY_S = 2.0
MAX_MET = 8  # peers that a node makes sure of in each round
MEMORY_SHARE = 0.8  # of the free memory, for weights and KV
Result = TypeVar("Result")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NodeSettings:
    """What an operator decides. `blocks` is START:STOP; without it the node takes what the swarm lacks."""

    model: str
    key_file: Path
    name: str
    version: str
    revision: str = "main"
    listen: Listen = field(default_factory=Listen)
    reachability: Reachability = Reachability.AUTO
    initial_peers: tuple[PeerAddress, ...] = ()
    allowed: frozenset[PeerID] | None = None
    blocks: str | None = None
    max_blocks: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = None
    kv_tokens: int = 16_384
    history_bytes: int = 8 << 30
    drain_s: float = 60.0
    link_delay_s: float = 0.0


@dataclass(frozen=True)
class Serving:
    """What a node serves, told once it does."""

    peer: PeerID
    addresses: tuple[Address, ...]
    model: str
    start: int
    stop: int
    blocks: int
    device: str
    dtype: str
    decode_ms: float
    shards: tuple[str, ...]


@dataclass(frozen=True)
class _Loaded:
    """Blocks ready to be served."""

    span: SpanModel
    runner: Runner
    speed: Speed


class Node:
    """`run` serves until `stop` is set. Raises NodeError or SwarmError for what keeps it from serving."""

    def __init__(self, settings: NodeSettings, on_serving: Callable[[Serving], None]) -> None:
        self.settings, self._on_serving = settings, on_serving
        return_freed_memory()
        torch.set_grad_enabled(False)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self.identity: Identity = load_or_create_key(settings.key_file)
        self.device = choose_device(settings.device)
        self.source: Source = open_source(settings.model, settings.revision)
        self.anatomy: Anatomy = examine(load_config(self.source))
        self.dtype = choose_dtype(settings.dtype, self.device, getattr(self.anatomy.config, "dtype", None))
        self.checkpoint = Checkpoint(self.source)
        self.model = self.source.manifest.model_id
        self._membership = Membership(
            settings.key_file,
            settings.listen,
            settings.initial_peers,
            allowed=None if settings.allowed is None else settings.allowed | {self.identity.peer_id},
            reachability=settings.reachability,
        )
        self._expires_ms = 0
        self._loaded: _Loaded | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Serve; begin again with the loaded blocks if p2pd ends under us, however often it takes."""
        await self._membership.run(stop, lambda place: self._serve(place, stop))

    async def _serve(self, place: Place, stop: asyncio.Event) -> None:
        """Until `stop` is set, or p2pd ends."""
        host, directory = place.host, place.directory
        self._loaded = loaded = self._loaded or await self._take_span(directory, await place.addresses(), stop)
        if loaded is None:
            return
        self._membership.settled = True
        service = Service(
            host,
            loaded.span,
            loaded.runner,
            Archive(self.settings.history_bytes),
            self.model,
            loaded.speed,
            self._about(),
            allowed=self._membership.allowed,
            delay_s=self.settings.link_delay_s,
        )
        await service.start()
        try:
            await self._announce(directory, await place.addresses(), loaded, NodeState.SERVING)
            self._on_serving(self._describe(await place.addresses(), loaded))
            await self._keep_announcing(place, loaded, stop)
            if not host.ended.is_set():
                await self._announce(directory, await place.addresses(), loaded, NodeState.LEAVING)
                await service.drain(self.settings.drain_s)
        finally:
            await service.close()

    async def _keep_announcing(self, place: Place, loaded: _Loaded, stop: asyncio.Event) -> None:
        """Every half minute; sooner while none of the peers we know answers, or when our addresses change."""
        wait_s, directory = RETRY_S, place.directory
        while True:
            await first_of(stop.wait(), place.host.ended.wait(), place.moved.wait(), timeout_s=wait_s)
            if stop.is_set() or place.host.ended.is_set():
                return
            place.moved.clear()
            try:
                self._remember(await directory.nodes(self.model))
                peers = self._membership.peers
                some = random.sample(peers, min(len(peers), MAX_MET))
                met = await directory.meet(some) if some else True
                await self._announce(directory, await place.addresses(), loaded, NodeState.SERVING)
                wait_s = REFRESH_S if met else min(2 * wait_s, REFRESH_S)
            except Exception:  # a failed round is made good by the next; the announcement lives for two
                log.warning("could not announce", exc_info=True)

    def _remember(self, nodes: list[Announcement]) -> None:
        """Other nodes' addresses, to find the swarm again if it is lost."""
        others = [a for a in nodes if a.node != self.identity.public]
        self._membership.remember(PeerAddress(peer_id(a.node), a.addresses) for a in others)

    async def _take_span(
        self, directory: Directory, addresses: tuple[Address, ...], stop: asyncio.Event
    ) -> _Loaded | None:
        """Choose, announce, load and test the blocks; None if `stop` came first."""
        start, stop_block = self._choose(await directory.nodes(self.model))
        joining = self._announcement(addresses, start, stop_block, NodeState.JOINING)
        await directory.announce(joining)
        log.info("loading blocks %d:%d of %s", start, stop_block, self.source.name)
        loading = asyncio.ensure_future(_in_thread(lambda: self._load(start, stop_block)))
        await first_of(loading, stop.wait())
        if stop.is_set():
            loading.cancel()
            return None
        return await loading

    def _choose(self, nodes: list[Announcement]) -> tuple[int, int]:
        blocks = self.anatomy.blocks
        if self.settings.blocks is not None:
            return parse_span(self.settings.blocks, blocks)
        sizes = tuple(count * self.dtype.itemsize for count in self.anatomy.block_parameters)
        fitting = blocks_that_fit(sizes, self._kv_bytes_per_block(), int(free_bytes(self.device) * MEMORY_SHARE))
        others = [a for a in nodes if a.node != self.identity.public and a.state is not NodeState.LEAVING]
        return choose_span(others, blocks, min(fitting, self.settings.max_blocks or blocks))

    def _kv_bytes_per_block(self) -> int:
        config = self.anatomy.config.get_text_config(decoder=True)
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return 2 * int(heads) * int(head_dim) * self.dtype.itemsize * self.settings.kv_tokens

    def _load(self, start: int, stop: int) -> _Loaded:
        span = SpanModel(self.checkpoint, self.anatomy, start, stop, self.dtype, self.device)
        self_test(span)
        runner = choose_runner(span, self.settings.kv_tokens)
        return _Loaded(span, runner, measure(span, runner))

    async def _announce(
        self, directory: Directory, addresses: tuple[Address, ...], loaded: _Loaded, state: NodeState
    ) -> None:
        announcement = self._announcement(addresses, loaded.span.start, loaded.span.stop, state)
        if not await directory.announce(announcement):
            log.info("no peer of the directory kept our announcement")

    def _announcement(self, addresses: tuple[Address, ...], start: int, stop: int, state: NodeState) -> Announcement:
        now_ms = time.time_ns() // 1_000_000
        # The DHT keeps the record that expires last, so each must outlive the one before; the last one too.
        self._expires_ms = min(max(now_ms + LIFE_MS, self._expires_ms + 1), now_ms + MAX_LIFE_MS)
        speed = self._loaded.speed if self._loaded else None
        return Announcement(
            node=self.identity.public,
            model=self.model,
            issued_ms=now_ms,
            expires_ms=self._expires_ms,
            start=start,
            stop=stop,
            profile=PROFILES[self.dtype],
            state=state,
            decode_us=speed.decode_us if speed else 0,
            prefill_us=speed.prefill_us if speed else 0,
            addresses=addresses_that_fit(addresses),
        ).signed(self.identity)

    @property
    def model_name(self) -> str:
        """A name for people: a repository's, or a folder's last part, which says nothing of this machine."""
        return self.source.folder.resolve().name if isinstance(self.source, LocalFolder) else self.source.name

    def _about(self) -> About:
        settings = self.settings
        return About(settings.name, self.model_name, self.anatomy.blocks, describe(self.device), settings.version)

    def _describe(self, addresses: tuple[Address, ...], loaded: _Loaded) -> Serving:
        return Serving(
            peer=self.identity.peer_id,
            addresses=addresses,
            model=self.model_name,
            start=loaded.span.start,
            stop=loaded.span.stop,
            blocks=self.anatomy.blocks,
            device=describe(self.device),
            dtype=str(self.dtype).removeprefix("torch."),
            decode_ms=loaded.speed.decode_s * 1e3,
            shards=tuple(self.checkpoint.opened),
        )


async def _in_thread(work: Callable[[], Result]) -> Result:
    """Run `work` in a thread that does not keep the process alive when it is to stop."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def finish(result: Result | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # a result is there when no error is

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(finish, result, error)

    threading.Thread(target=run, name="load", daemon=True).start()
    return await done
