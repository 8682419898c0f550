"""Finds the nodes that a route could run through: reads the directory, meets them, asks how they are."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import IntEnum
from random import Random
from typing import Protocol

from nectar_protocol.address import Address
from nectar_protocol.announcement import Announcement
from nectar_protocol.errors import ProtocolError
from nectar_protocol.identity import PeerID
from nectar_protocol.manifest import ModelID
from nectar_swarm.directory import REFRESH_S, Directory
from nectar_swarm.errors import SwarmError, UnreachableError
from nectar_swarm.frames import Kind
from nectar_swarm.link import Link
from nectar_swarm.status import Status

from nectar.routing import Candidate, PeerSet, shortlist, some_of
from nectar.view import View

MEET_S = 2.0
ASK_S = 0.5
SLOW_S = 1.0  # what a step is taken to wait on a node that did not answer in time
GRACE_S = 0.3  # how long those who are still to be met are waited for, when the others would do
LOOK_S = 0.5  # and otherwise, before it is said who has been met so far; also for a directory that is slow
MAX_MET, MAX_STRANGERS = 32, 8  # of those we know something of; of others, if there are as many of the former
FRESH_S, STALE_S = 0.5, 10.0
RECENT_S = 1.5 * REFRESH_S  # how long what a node at hand said is good enough for a repair
REPAIR_S = 0.3  # how long those who mend their routes have all to themselves
SOON_S, GROWTH = 1.0, 1.5  # the first pause after a death, and by what each is longer than the one before


class Effort(IntEnum):
    """How far to look for nodes; each goes beyond the one before.

    AT_HAND: those known and linked already, as they lately said they were if that will do, else at the cost of a round
    trip; MEET: others that are known too; LOOK_AGAIN: whom the directory names now; FORGIVE: also those set aside.
    """

    AT_HAND = 0
    MEET = 1
    LOOK_AGAIN = 2
    FORGIVE = 3


class Network(Protocol):
    """What a scout needs of its connection."""

    async def directory(self) -> Directory: ...

    async def link(self, peer: PeerID, addresses: Sequence[Address]) -> Link: ...

    def present_link(self, peer: PeerID) -> Link | None: ...


class Scout:
    """Lives in the connection's loop."""

    def __init__(self, network: Network, view: View) -> None:
        self._network, self._view = network, view
        self._chance = Random()
        self._asked: dict[int, asyncio.Future[Status]] = {}
        self._reading: dict[ModelID, asyncio.Task[None]] = {}
        self._meeting: dict[tuple[ModelID, PeerID], asyncio.Task[Candidate | None]] = {}
        self._met: dict[tuple[ModelID, PeerID], tuple[float, Candidate]] = {}  # those who said how they are, and when
        self._trusted: set[PeerID] = set()  # by any session of this process
        self._seen: frozenset[PeerID] = frozenset()  # who have answered in the directory
        self._hurry, self._pause_s = asyncio.Event(), REFRESH_S

    async def candidates(
        self,
        model: ModelID,
        effort: Effort,
        *,
        trusted: PeerSet = frozenset(),
        enough: Callable[[Sequence[Candidate]], bool] = lambda met: False,
    ) -> list[Candidate]:
        """The nodes that serve this model and can be met, as they are now; `trusted` ones are looked for above all.

        Soon at hand, so that a slow directory or a dial into the void holds nobody up: what is not known by then is
        found out behind our back, and counts the next time. Raises SwarmError.
        """
        await self._network.directory()  # joins the swarm, lest a failure of ours be taken for theirs
        self._trusted |= trusted
        if effort is Effort.AT_HAND and enough(recent := self._recent(model)):
            return recent
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S if self._view.nodes(model) else None):
                await self.nodes(model, fresh=effort >= Effort.LOOK_AGAIN)
        pending, met = set(self._begin_to_meet(model, effort)), list[Candidate]()
        until_s, sufficient = time.monotonic() + LOOK_S, False
        while pending and (left_s := until_s - time.monotonic()) > 0:
            done, pending = await asyncio.wait(pending, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            met += [candidate for task in done if (candidate := task.result()) is not None]
            if not sufficient and enough(met):
                until_s, sufficient = time.monotonic() + GRACE_S, True
        return met

    def _recent(self, model: ModelID) -> list[Candidate]:
        """Those at hand, as they were not long ago."""
        since_s = time.monotonic() - RECENT_S
        self._met = {key: met for key, met in self._met.items() if met[0] > since_s}
        nodes = self._view.nodes(model).items()
        met = [(node, self._met[model, peer][1]) for peer, node in nodes if (model, peer) in self._met]
        return [
            replace(one, busy_from=self._view.busy_from(one.peer))
            for node, one in met
            if self._is_wanted(one.peer, node, Effort.AT_HAND)
            and (one.start, one.stop, one.addresses) == (node.start, node.stop, node.addresses)
        ]

    def _begin_to_meet(self, model: ModelID, effort: Effort) -> list[asyncio.Task[Candidate | None]]:
        """Tasks that meet the likeliest nodes, those that are under way already among them.

        Who has a link or has answered in the directory exists; any number of others may not.
        """
        nodes = self._view.nodes(model)
        wanted = {peer: node for peer, node in nodes.items() if self._is_wanted(peer, node, effort)}
        mine = {peer: node for peer, node in wanted.items() if peer in self._trusted}
        real = {peer: node for peer, node in wanted.items() if peer not in mine and self._exists(peer)}
        strangers = {peer: node for peer, node in wanted.items() if peer not in mine and peer not in real}
        chosen = shortlist(mine, MAX_MET, self._chance) + shortlist(real, MAX_MET, self._chance)
        chosen += some_of(strangers, max(MAX_MET - len(chosen), MAX_STRANGERS), self._chance)
        return [self._meeting_with(peer, wanted[peer]) for peer in chosen]

    def _exists(self, peer: PeerID) -> bool:
        return peer in self._seen or self._network.present_link(peer) is not None

    def _meeting_with(self, peer: PeerID, node: Announcement) -> asyncio.Task[Candidate | None]:
        key = node.model, peer
        if key not in self._meeting:
            self._meeting[key] = asyncio.create_task(self._meet(peer, node))
            self._meeting[key].add_done_callback(lambda done: self._meeting.pop(key))
        return self._meeting[key]

    def _is_wanted(self, peer: PeerID, node: Announcement, effort: Effort) -> bool:
        if not node.serves or (effort < Effort.FORGIVE and self._view.is_aside(peer)):
            return False
        link = self._network.present_link(peer)
        return effort > Effort.AT_HAND or (link is not None and not link.suspected)

    async def _meet(self, peer: PeerID, node: Announcement) -> Candidate | None:
        try:
            async with asyncio.timeout(MEET_S):
                link = await self._network.link(peer, node.addresses)
                await link.measured.wait()
        except (SwarmError, TimeoutError):
            self._view.set_aside(peer)
            return None
        status = None
        with contextlib.suppress(UnreachableError):
            status = await self._ask(link, ASK_S)
        met = Candidate(
            peer,
            node.addresses,
            node.start,
            node.stop,
            decode_s=((status and status.decode_us) or node.decode_us) / 1e6,
            rtt_s=link.rtt_s or 0.0,
            wait_s=SLOW_S if status is None else status.wait_us / 1e6,
            kv_free=None if status is None else status.kv_free,
            kv_total=None if status is None else status.kv_total,
            busy_from=self._view.busy_from(peer),
            profile=node.profile,
            ledger=b"" if status is None else status.ledger,
        )
        if status is not None:
            self._met[node.model, peer] = time.monotonic(), met
        return met

    # Questions

    async def ask(self, peer: PeerID, addresses: Sequence[Address]) -> Status:
        """What a node says of itself. Raises SwarmError."""
        return await self._ask(await self._network.link(peer, addresses), MEET_S)

    async def _ask(self, link: Link, timeout_s: float) -> Status:
        number = secrets.randbits(63)
        self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            link.send(number, Kind.ASK)
            async with asyncio.timeout(timeout_s):
                return await self._asked[number]
        except TimeoutError as error:
            raise UnreachableError(f"{link.peer} did not say how it is within {timeout_s:g} s") from error
        finally:
            del self._asked[number]

    def on_status(self, link: Link, number: int, payload: bytes) -> None:
        asked = self._asked.get(number)
        if asked is not None and not asked.done():
            with contextlib.suppress(ProtocolError):
                asked.set_result(Status.unpack(payload, link.version))

    # The directory

    async def nodes(self, model: ModelID, *, fresh: bool = False) -> list[Announcement]:
        """The nodes that announce a model and do not leave: those known, or if `fresh` as of half a second ago.

        Raises SwarmError if none is known and the directory cannot be read.
        """
        known, age_s = self._view.nodes(model), self._view.age_s(model)
        if (fresh or not known) and age_s > FRESH_S:
            try:
                await self._read(model)
            except SwarmError:
                if not known:
                    raise
        elif age_s > (STALE_S if self._pause_s >= REFRESH_S else SOON_S):
            self._hurry.set()
        return list(self._view.nodes(model).values())

    async def models(self) -> list[ModelID]:
        """The models of this swarm. Raises SwarmError."""
        return await (await self._network.directory()).models()

    async def _read(self, model: ModelID) -> None:
        """Raises SwarmError. All who want to know at once share one reading."""
        if model not in self._reading:

            async def read() -> None:
                directory = await self._network.directory()
                linked = {peer for peer in self._view.nodes(model) if self._network.present_link(peer)}
                self._view.learn(model, await directory.nodes(model, linked | self._trusted))
                self._seen = directory.peers

            task = self._reading[model] = asyncio.create_task(read())
            task.add_done_callback(lambda done: self._has_read(model, done))
        await asyncio.shield(self._reading[model])

    def _has_read(self, model: ModelID, task: asyncio.Task[None]) -> None:
        self._reading.pop(model, None)
        if not task.cancelled():
            task.exception()  # seen, even if whoever wanted it has gone

    def alarm(self) -> None:
        """A node that we may need has died: look for others, and for its return."""
        self._pause_s = SOON_S
        self._hurry.set()

    async def keep_fresh(self, in_use: Callable[[], bool]) -> None:
        """While we are in use, read the directory and meet who is new: a spare is needed in a hurry.

        Every REFRESH_S; soon after an alarm, then with pauses that grow up to that.
        """
        while True:
            try:
                async with asyncio.timeout(self._pause_s):
                    await self._hurry.wait()
            except TimeoutError:
                self._pause_s = min(GROWTH * self._pause_s, REFRESH_S)
            else:
                await asyncio.sleep(REPAIR_S)
            self._hurry.clear()
            for model in self._view.models if in_use() else ():
                self._begin_to_meet(model, Effort.MEET)
                with contextlib.suppress(SwarmError):
                    await self.nodes(model, fresh=True)
                    self._begin_to_meet(model, Effort.MEET)
