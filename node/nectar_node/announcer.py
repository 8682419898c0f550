"""What a node says of itself in the directory: signed, renewed, and never outlived by what it said before."""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from nectar_protocol.address import Address
from nectar_protocol.announcement import MAX_LIFE_MS, Announcement, NodeState, Profile, addresses_that_fit
from nectar_protocol.identity import Identity
from nectar_protocol.manifest import ModelID
from nectar_swarm.directory import LIFE_MS, REFRESH_S, Directory

from nectar_node.speed import Speed, SpeedOfAll

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pace:
    """How often a node speaks and looks around, in seconds.

    `recheck_s`: whether it should move is looked at after one to two of these. `intention_s`: how long it waits, once
    it has said that it wants to; longer than a word takes to reach everybody. `settle_s`: the same for joining, where
    a mistake costs less.
    """

    refresh_s: float = REFRESH_S
    life_ms: int = LIFE_MS
    recheck_s: float = 60.0
    intention_s: float = 45.0
    settle_s: float = 2.0

    def times(self, factor: float) -> "Pace":
        """The same, so many times as fast."""
        return Pace(
            self.refresh_s / factor,
            int(self.life_ms / factor),
            self.recheck_s / factor,
            self.intention_s / factor,
            self.settle_s / factor,
        )


class Announcer:
    """One node's voice. `attach` it to a directory, again after each restart of p2pd; `speed` is told once measured.

    `last` is what was said last.
    """

    def __init__(
        self,
        identity: Identity,
        model: ModelID,
        profile: Profile,
        pace: Pace,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.identity, self.model, self.profile, self.pace = identity, model, profile, pace
        self.speed: Speed | SpeedOfAll | None = None
        self.last: Announcement | None = None
        self._now_ms = now_ms
        self._directory: Directory | None = None
        self._addresses: Callable[[], Awaitable[tuple[Address, ...]]] | None = None
        self._word: tuple[int, int, NodeState] | None = None

    def attach(self, directory: Directory, addresses: Callable[[], Awaitable[tuple[Address, ...]]]) -> None:
        self._directory, self._addresses, self._word = directory, addresses, None

    async def say(self, start: int, stop: int, state: NodeState) -> bool:
        """From now on this is what we do; False if no peer heard it. What went wrong is logged: a later round of
        `repeat` makes it good.
        """
        self._word = (start, stop, state)
        return await self.repeat()

    async def repeat(self) -> bool:
        """Say it again before it expires."""
        if self._word is None or self._directory is None or self._addresses is None:
            return False
        try:
            addresses = await self._addresses()
            self.last = self.announcement(addresses, *self._word)
            kept = await self._directory.announce(self.last)
        except Exception:  # hivemind raises plain ones
            log.warning("could not announce", exc_info=True)
            return False
        if not kept:
            log.info("no peer of the directory kept our announcement")
        return kept

    def announcement(self, addresses: tuple[Address, ...], start: int, stop: int, state: NodeState) -> Announcement:
        now_ms, last = self._now_ms(), self.last
        # Who asked first to move goes first, so asking again is not asking later.
        asked_before = last is not None and last.state is state is NodeState.MOVING
        issued_ms = last.issued_ms if last is not None and asked_before else now_ms
        # The DHT keeps the record that expires last, so each must outlive the one before; the last one too.
        before_ms = last.expires_ms if last is not None else 0
        return Announcement(
            node=self.identity.public,
            model=self.model,
            issued_ms=issued_ms,
            expires_ms=min(max(now_ms + self.pace.life_ms, before_ms + 1), issued_ms + MAX_LIFE_MS),
            start=start,
            stop=stop,
            profile=self.profile,
            state=state,
            decode_us=self.speed.decode_us if self.speed else 0,
            prefill_us=self.speed.prefill_us if self.speed else 0,
            addresses=addresses_that_fit(addresses),
        ).signed(self.identity)
