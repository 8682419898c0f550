"""A node's life: join the swarm, choose and load blocks, serve them, announce them, move to others, leave."""

import asyncio
import gc
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from nectar_protocol.address import Address
from nectar_protocol.announcement import Announcement, NodeState
from nectar_protocol.identity import Identity, PeerID, peer_id
from nectar_swarm.anatomy import Anatomy, examine, load_config
from nectar_swarm.checkpoint import Checkpoint
from nectar_swarm.folder import LocalFolder
from nectar_swarm.host import Listen
from nectar_swarm.keyfile import load_or_create_key
from nectar_swarm.membership import Membership, Place
from nectar_swarm.peeraddress import PeerAddress
from nectar_swarm.reachability import Reachability
from nectar_swarm.source import Source
from nectar_swarm.waiting import first_of

from nectar_node.about import About
from nectar_node.announcer import Announcer, Pace
from nectar_node.archive import Archive
from nectar_node.background import in_thread
from nectar_node.devices import choose_devices, describe
from nectar_node.loader import Loader
from nectar_node.memory import return_freed_memory
from nectar_node.mover import Mover, Span
from nectar_node.placement import parse_span
from nectar_node.service import Service
from nectar_node.stage import Loaded
from nectar_node.stay import Stay
from nectar_node.till.office import Ledger, Office

RETRY_S = 2.0
MAX_MET = 8  # peers that a node makes sure of in each round

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NodeSettings:
    """What an operator decides. `blocks` is START:STOP; without it the node takes what the swarm lacks, and moves."""

    source: Source
    key_file: Path
    name: str
    version: str
    listen: Listen = field(default_factory=Listen)
    reachability: Reachability = Reachability.AUTO
    initial_peers: tuple[PeerAddress, ...] = ()
    allowed: frozenset[PeerID] | None = None
    blocks: str | None = None
    max_blocks: int | None = None
    device: str = "auto"
    profile: str = "auto"
    threads: int | None = None
    kv_tokens: int = 16_384
    history_bytes: int = 8 << 30
    drain_s: float = 60.0
    link_delay_s: float = 0.0
    pace: Pace = field(default_factory=Pace)
    ledger: Ledger | None = None


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
    profile: str
    decode_ms: float
    shards: tuple[str, ...]


class Node:
    """`run` serves until `stop` is set. Raises NodeError or SwarmError for what keeps it from serving.

    `say` tells the operator what its ledger wants of it.
    """

    def __init__(
        self, settings: NodeSettings, on_serving: Callable[[Serving], None], say: Callable[[str], None] = log.warning
    ) -> None:
        self.settings, self._on_serving, self._say = settings, on_serving, say
        return_freed_memory()
        torch.set_grad_enabled(False)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self.identity: Identity = load_or_create_key(settings.key_file)
        devices = choose_devices(settings.device)
        self.source = settings.source
        self.anatomy: Anatomy = examine(load_config(self.source))
        self.checkpoint = Checkpoint(self.source)
        self.loader = Loader(
            self.checkpoint,
            self.anatomy,
            devices,
            profile=settings.profile,
            kv_tokens=settings.kv_tokens,
            blocks=settings.blocks,
            max_blocks=settings.max_blocks,
        )
        self.model = self.source.manifest.model_id
        self._membership = Membership(
            settings.key_file,
            settings.listen,
            settings.initial_peers,
            allowed=None if settings.allowed is None else settings.allowed | {self.identity.peer_id},
            reachability=settings.reachability,
        )
        self._announcer = Announcer(self.identity, self.model, self.loader.format.profile, settings.pace)
        self._stays = settings.blocks is not None
        self._loaded: Loaded | None = None
        self._archive: Archive | None = None  # outlives every span that is served
        self._office: Office | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Serve; begin again with the loaded blocks if p2pd ends under us, however often it takes."""
        self._archive = Archive(self.settings.history_bytes)
        try:
            await self._membership.run(stop, lambda place: self._serve(place, stop))
        finally:
            if self._office is not None:
                await self._office.close()
            self._archive.close()

    async def _open_office(self, ledger: Ledger) -> Office:
        return await Office.open(
            ledger,
            self.settings.key_file,
            self.identity,
            self.model,
            self.loader.format.profile,
            lambda: self._announcer.last,
            self._say,
        )

    async def _serve(self, place: Place, stop: asyncio.Event) -> None:
        """Until `stop` is set, or p2pd ends."""
        if self._office is None and self.settings.ledger is not None:  # not before the key is ours alone
            self._office = await self._open_office(self.settings.ledger)
        self._announcer.attach(place.directory, place.addresses)
        mover = Mover(place.directory, self._announcer, self.anatomy.blocks, random.Random())
        announcing = asyncio.create_task(self._keep_announcing(place))
        try:
            if self._loaded is None:
                await self._take(await self._choose(mover), stop)
            while self._loaded is not None and not (stop.is_set() or place.host.ended.is_set()):
                self._membership.settled = True
                if (target := await self._stay(place, mover, self._loaded, stop)) is not None:
                    await self._move(target, stop)
        finally:
            announcing.cancel()
            await asyncio.gather(announcing, return_exceptions=True)

    async def _stay(self, place: Place, mover: Mover, loaded: Loaded, stop: asyncio.Event) -> Span | None:
        """Serve these blocks until `stop` is set, p2pd ends, or it is time to move, and where to."""
        settings = self.settings
        assert self._archive is not None, "made before anything is served"
        service = Service(
            place.host,
            loaded,
            self._archive,
            self.model,
            self._about(),
            till=self._office.till if self._office else None,
            allowed=self._membership.allowed,
            delay_s=settings.link_delay_s,
        )
        stay = Stay(service, self._announcer, loaded.blocks, None if self._stays else mover, settings.drain_s)
        await service.start()
        try:
            await stay.begin()
            self._on_serving(self._describe(await place.addresses(), loaded))
            return await stay.end(stop, place.host.ended)
        finally:
            await service.close()

    async def _keep_announcing(self, place: Place) -> None:
        """Every half minute; sooner while none of the peers we know answers, or when our addresses change."""
        wait_s, refresh_s = RETRY_S, self.settings.pace.refresh_s
        while True:
            await first_of(place.moved.wait(), timeout_s=wait_s)
            place.moved.clear()
            try:
                self._remember(await place.directory.nodes(self.model))
                some = self._membership.some(MAX_MET)
                met = await place.directory.meet(some) if some else True
                await self._announcer.repeat()
                wait_s = refresh_s if met else min(2 * wait_s, refresh_s)
            except Exception:  # a failed round is made good by the next; the announcement lives for two
                log.warning("cannot look around", exc_info=True)

    def _remember(self, nodes: list[Announcement]) -> None:
        """Other nodes' addresses, to find the swarm again if it is lost."""
        others = [a for a in nodes if a.node != self.identity.public]
        self._membership.remember(PeerAddress(peer_id(a.node), a.addresses) for a in others)

    async def _choose(self, mover: Mover) -> Span:
        """The blocks to begin with, announced. Raises PlacementError or SwarmError."""
        if self.settings.blocks is None:
            return await mover.join(self.loader.blocks_that_fit)
        span = parse_span(self.settings.blocks, self.anatomy.blocks)
        await self._announcer.say(*span, NodeState.JOINING)
        return span

    async def _move(self, target: Span, stop: asyncio.Event) -> None:
        """Load other blocks in the place of ours; ours again if that fails, and then we stay for good."""
        assert self._loaded is not None, "there is nothing to move from"
        old, self._loaded = self._loaded.blocks, None
        gc.collect()  # there may not be room for both
        self.checkpoint.release()  # nor on the disk
        for span in (target, old):
            try:
                return await self._take(span, stop)
            except Exception as error:  # whatever it is, we could serve before
                if span == old:
                    raise
                log.warning("cannot load blocks %d:%d, going back to %d:%d for good: %s", *target, *old, error)
            self._stays = True
            await self._announcer.say(*old, NodeState.JOINING)

    async def _take(self, span: Span, stop: asyncio.Event) -> None:
        """Load and test blocks, unless `stop` comes first."""
        log.info("loading blocks %d:%d of %s", *span, self.source.name)
        loading = asyncio.ensure_future(in_thread(lambda: self.loader.load(*span)))
        await first_of(loading, stop.wait())
        if stop.is_set():
            loading.cancel()
            return
        self._loaded = await loading
        self._announcer.speed = self._loaded.speed

    @property
    def model_name(self) -> str:
        """A name for people: a repository's, or a folder's last part, which says nothing of this machine."""
        return self.source.folder.resolve().name if isinstance(self.source, LocalFolder) else self.source.name

    def _about(self) -> About:
        settings = self.settings
        return About(
            settings.name, self.model_name, self.anatomy.blocks, describe(self.loader.devices), settings.version
        )

    def _describe(self, addresses: tuple[Address, ...], loaded: Loaded) -> Serving:
        return Serving(
            peer=self.identity.peer_id,
            addresses=addresses,
            model=self.model_name,
            start=loaded.start,
            stop=loaded.stop,
            blocks=self.anatomy.blocks,
            device=describe(self.loader.devices),
            profile=self.loader.format.profile.name.lower(),
            decode_ms=loaded.speed.decode_s * 1e3,
            shards=tuple(self.checkpoint.opened),
        )
