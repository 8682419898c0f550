"""A node made by hand, with a p2pd of its own, on real links and in a real directory.

It keeps the protocol as a node does, and does to a session whatever a test says. What it computes shows if a position
was lost or doubled.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from nectar_protocol.announcement import Announcement, NodeState, Profile
from nectar_protocol.identity import Identity, PeerID
from nectar_protocol.manifest import ModelID
from nectar_swarm.directory import LIFE_MS, Directory
from nectar_swarm.errors import UnreachableError
from nectar_swarm.frames import Kind
from nectar_swarm.history import History
from nectar_swarm.host import Host, Listen
from nectar_swarm.keyfile import load_or_create_key
from nectar_swarm.link import Link
from nectar_swarm.messages import Error, ErrorCode, Neighbours, Open, Routed, Step
from nectar_swarm.peeraddress import PeerAddress
from nectar_swarm.peers import Peers
from nectar_swarm.status import Status

MODEL = ModelID(b"m" * 32)
BLOCKS, BATCH, WIDTH = 6, 2, 4
KV = 1 << 20


def run_block(hidden: torch.Tensor, times: int) -> torch.Tensor:
    """Each position's output is the mean of all up to it, and one more."""
    for _ in range(times):
        counts = torch.arange(1, hidden.shape[1] + 1)[None, :, None]
        hidden = hidden.cumsum(1) / counts + 1
    return hidden


class Node:
    """One node; methods without `async` that a test calls go through `Swarm.call`, plain attributes may just be set."""

    def __init__(self, key_file: Path, faults: list[BaseException]) -> None:
        self.key_file, self.faults = key_file, faults
        self.identity: Identity = load_or_create_key(key_file)
        self.expires_ms = 0
        self.reset()

    @property
    def peer(self) -> PeerID:
        return self.identity.peer_id

    def reset(self) -> None:
        """What a test may have changed, as it was."""
        self.alive = True
        self.refuses: ErrorCode | None = None
        self.retry_after_ms = 0
        self.dies_at = 0  # when this step comes
        self.unreachable: set[PeerID] = set()
        self.spoil: Callable[[Step], bytes] = Step.pack
        self.compute: Callable[[Step], None] = self.run
        self.mute = False  # says nothing of itself
        self.kv_free, self.wait_us, self.decode_us = KV, 0, 0
        self.ledger = b""
        self.opened = self.refused = 0
        self.place: Neighbours | None = None
        self.successor: Link | None = None
        self.number = 0
        self.early: list[tuple[PeerID, int, bytes]] = []

    # Its life

    async def start(self, others: list[PeerAddress]) -> None:
        self.known: set[PeerID] = set()
        self.host = await Host.start(key_file=self.key_file, listen=Listen("127.0.0.1"))
        self.directory = await Directory.join(self.host, others)
        self.peers = Peers(self.host, self)
        await self.peers.start()
        self.at = PeerAddress(self.host.peer_id, await self.host.addresses())

    async def close(self) -> None:
        await self.peers.close()
        await self.directory.close()
        await self.host.close()

    async def serve(
        self, start: int, stop: int, decode_us: int = 1000, state: NodeState = NodeState.SERVING, **changes: Any
    ) -> None:
        """Announce it; `changes` are of the announcement's other fields."""
        now_ms = time.time_ns() // 1_000_000
        self.expires_ms = max(now_ms + LIFE_MS, self.expires_ms + 1)
        fields = {"addresses": self.at.addresses, "prefill_us": 1, "profile": Profile.F32} | changes
        said = Announcement(
            self.identity.public,
            MODEL,
            now_ms,
            self.expires_ms,
            start,
            stop,
            state=state,
            decode_us=decode_us,
            **fields,
        )
        assert await self.directory.announce(said.signed(self.identity))

    def die(self) -> None:
        """Lose all links and make no more, as whoever is killed."""
        self.alive, self.peers.allowed = False, frozenset()
        for peer in self.met:
            self.peers.drop(peer, "was killed by a test")

    @property
    def met(self) -> set[PeerID]:
        return {peer for peer in (*self.known, self.place and self.place.next) if peer}

    # Messages

    def on_message(self, link: Link, session: int, kind: Kind, payload: bytes) -> None:
        if not self.alive:
            return
        self.known.add(link.peer)
        try:
            self.take(link, session, kind, payload)
        except BaseException as error:
            self.faults.append(error)
            raise

    def take(self, link: Link, session: int, kind: Kind, payload: bytes) -> None:
        match kind:
            case Kind.ASK if not self.mute:
                numbers = self.kv_free, KV, 0, 0, BLOCKS
                said = "bee", "by hand", "cpu", "f32", "0", self.wait_us, self.decode_us, self.ledger
                status = Status(*numbers, *said)
                link.send(session, Kind.STATUS, status.pack(link.version))
            case Kind.OPEN:
                self.open(link, session, Open.unpack(payload))
            case Kind.REROUTE if session == self.number and self.place:
                self.settle_in(Neighbours.unpack(payload))
            case Kind.STEP if session == self.number and self.place and link.peer == self.predecessor:
                self.compute(Step.unpack(payload))
            case Kind.STEP:
                self.early.append((link.peer, session, payload))
            case Kind.CLOSE if session == self.number:
                self.place = None

    def open(self, link: Link, session: int, request: Open) -> None:
        generation = request.neighbours.generation
        if self.refuses:
            self.refused += 1
            error = Error(self.refuses, "not now", generation, retry_after_ms=self.retry_after_ms)
            link.send(session, Kind.ERROR, error.pack(link.version))
            return
        assert self.place is None, "a session is open here already"
        self.opened, self.accepted, self.history = self.opened + 1, 0, History()
        self.number, self.owner = session, link.peer
        self.past = torch.zeros(request.batch, 0, WIDTH)
        self.blocks = request.stop - request.start
        self.settle_in(request.neighbours)

    @property
    def predecessor(self) -> PeerID:
        assert self.place is not None
        return self.place.prev or self.owner

    def settle_in(self, place: Neighbours) -> None:
        self.place, self.sent, self.successor = place, place.sent, None
        self.joining = asyncio.get_running_loop().create_task(self.join(place))
        mine = self.predecessor, self.number
        now = [payload for sender, session, payload in self.early if (sender, session) == mine]
        self.early = [parked for parked in self.early if parked[:2] != mine]  # of a predecessor that is yet to be named
        for payload in now:
            self.compute(Step.unpack(payload))

    async def join(self, place: Neighbours) -> None:
        if place.next is None:
            successor = self.peers.link(self.owner)
        else:
            try:
                if place.next in self.unreachable:
                    raise UnreachableError("no way")
                successor = await self.peers.connect(place.next, place.next_addresses)
            except UnreachableError as error:
                self.tell(Error(ErrorCode.UNREACHABLE, str(error), place.generation, place.next))
                return
        if self.place is not place or successor is None:
            return
        self.successor = successor
        self.send(Kind.ROUTED, Routed(place.generation).pack())
        self.pump()

    def run(self, step: Step) -> None:
        if self.dies_at and step.last >= self.dies_at:
            self.die()
            return
        if step.last <= self.accepted:
            return
        assert step.first <= self.accepted + 1, "a gap"
        assert step.position <= self.past.shape[1], "positions are missing"
        past = self.past[:, : step.position]
        past = past[list(step.reorder)] if step.reorder else past
        self.past, self.accepted = torch.cat([past, step.hidden], 1), step.last
        out = run_block(self.past, self.blocks)[:, step.position :]
        self.history.append(Step(step.first, step.last, step.position, out, step.reorder))
        self.pump()

    def pump(self) -> None:
        if self.successor is None or self.place is None:
            return
        for step in self.history.after(self.sent, self.place.settled):
            self.sent = step.last
            spoiled = self.spoil(step) if self.place.next is None else step.pack()
            self.successor.send(self.number, Kind.STEP, spoiled)

    def send(self, kind: Kind, payload: bytes) -> None:
        if link := self.peers.link(self.owner):
            link.send(self.number, kind, payload)

    def tell(self, error: Error) -> None:
        if link := self.peers.link(self.owner):
            link.send(self.number, Kind.ERROR, error.pack(link.version))

    def on_dead(self, peer: PeerID, reason: str) -> None:
        if not self.alive or self.place is None:
            return
        if peer == self.owner:
            self.place = None
        elif peer == self.place.next:
            self.successor = None
            self.tell(Error(ErrorCode.LOST, f"{peer} {reason}", self.place.generation, peer))
