"""What a client knows of its swarm without asking: who announced what, who failed lately, who is busy. No network."""

import time
from collections.abc import Callable, Iterable

from nectar_protocol.announcement import Announcement, NodeState
from nectar_protocol.identity import PeerID, peer_id
from nectar_protocol.manifest import ModelID
from nectar_swarm.peeraddress import PeerAddress

MAX_KNOWN = 2048  # nodes of a model
ASIDE_S, MAX_ASIDE_S = 1.0, 60.0
BUSY_S = 1.0  # where a busy node does not say when it may be asked again


class View:
    """Announcements count until they expire, so that a directory in trouble hides nobody."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[ModelID, dict[PeerID, Announcement]] = {}
        self._read_s: dict[ModelID, float] = {}
        self._aside: dict[PeerID, tuple[float, int]] = {}  # until when, and how many times in a row
        self._busy: dict[PeerID, tuple[float, int]] = {}  # until when, and for how many positions

    # Announcements

    def learn(self, model: ModelID, announcements: Iterable[Announcement]) -> None:
        """Take in what the directory holds now. A node that is somewhere else now has not failed there.

        If that is more than we keep, those go that it does not hold now.
        """
        known = self._living(model)
        now = [(peer_id(node.node), node) for node in announcements]
        if len(known) + len(now) > MAX_KNOWN:
            known = {peer: known[peer] for peer, _ in now if peer in known}
        for peer, node in now:
            before = known.get(peer)
            if before is not None and node.issued_ms <= before.issued_ms:
                continue
            if before is not None and node.addresses != before.addresses:
                self.trust_again(peer)
            known[peer] = node
        self._known[model], self._read_s[model] = known, self._clock()

    def age_s(self, model: ModelID) -> float:
        """How long ago the directory was read for this model; infinite if it never was."""
        return self._clock() - self._read_s.get(model, float("-inf"))

    def nodes(self, model: ModelID) -> dict[PeerID, Announcement]:
        """The nodes of a model that do not leave."""
        return {peer: node for peer, node in self._living(model).items() if node.state is not NodeState.LEAVING}

    @property
    def models(self) -> list[ModelID]:
        return list(self._known)

    @property
    def peers(self) -> list[PeerAddress]:
        """Every node that is known, of whatever model."""
        known = (self._living(model) for model in self._known)
        return [PeerAddress(peer, node.addresses) for nodes in known for peer, node in nodes.items()]

    def _living(self, model: ModelID) -> dict[PeerID, Announcement]:
        now_ms = time.time() * 1000
        return {peer: node for peer, node in self._known.get(model, {}).items() if node.expires_ms > now_ms}

    # Trouble

    def set_aside(self, peer: PeerID) -> None:
        """Leave a peer out for a second, and twice as long each further time in a row; a minute's peace ends the row.

        What fails while it is set aside is the same failure, seen by others.
        """
        now_s = self._clock()
        self._aside = {other: row for other, row in self._aside.items() if now_s - row[0] <= MAX_ASIDE_S}
        until_s, times = self._aside.get(peer, (now_s, 0))
        if now_s >= until_s:
            self._aside[peer] = (now_s + min(ASIDE_S * 2**times, MAX_ASIDE_S), times + 1)

    def is_aside(self, peer: PeerID) -> bool:
        return peer in self._aside and self._clock() < self._aside[peer][0]

    def trust_again(self, peer: PeerID) -> None:
        self._aside.pop(peer, None)

    def trust_everybody(self) -> None:
        """It was not the others who failed."""
        self._aside.clear()

    def leave_alone(self, peer: PeerID, seconds: float, positions: int = 0) -> None:
        """A busy node is not asked for so many positions, or more, before its time is over; 0 if it did not say."""
        now_s = self._clock()
        self._busy = {other: busy for other, busy in self._busy.items() if now_s < busy[0]}
        _, fewest = self._busy.get(peer, (0.0, positions))
        self._busy[peer] = now_s + min(seconds or BUSY_S, MAX_ASIDE_S), min(positions, fewest)

    def busy_from(self, peer: PeerID) -> int | None:
        """From how many positions on a node wants to be left alone; None for one that does not."""
        until_s, positions = self._busy.get(peer, (float("-inf"), 0))
        return positions if self._clock() < until_s else None
