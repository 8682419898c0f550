"""Steps that came too early: a neighbour may be faster than the client's word that it is one.

They wait two seconds, few and small in all, and are then refused.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from nectar_protocol.identity import PeerID

PARKED_S = 2.0
MAX_FRAMES, MAX_FRAMES_PER_PEER = 1024, 64
MAX_BYTES, MAX_BYTES_PER_PEER = 256 << 20, 64 << 20


@dataclass(frozen=True, eq=False)
class Parked:
    peer: PeerID
    session: int
    payload: bytes


class Parking:
    """`refuse` is called, in the loop, for each message whose time is over."""

    def __init__(self, refuse: Callable[[Parked], None]) -> None:
        self._refuse = refuse
        self._waiting: list[Parked] = []
        self._bytes = 0

    def park(self, peer: PeerID, session: int, payload: bytes) -> None:
        parked = Parked(peer, session, payload)
        own = [len(other.payload) for other in self._waiting if other.peer == peer]
        if len(own) >= MAX_FRAMES_PER_PEER or sum(own) + len(payload) > MAX_BYTES_PER_PEER:
            self._refuse(parked)
            return
        while len(self._waiting) >= MAX_FRAMES or self._bytes + len(payload) > MAX_BYTES:
            if not self._make_way(peer):
                self._refuse(parked)
                return
        self._waiting.append(parked)
        self._bytes += len(payload)
        asyncio.get_running_loop().call_later(PARKED_S, self._expire, parked)

    def _make_way(self, peer: PeerID) -> bool:
        """Refuse the newest message of whoever parks the most; False if that is the peer who wants room."""
        frames = Counter(parked.peer for parked in self._waiting)
        [(most, count)] = frames.most_common(1) or [(peer, 0)]
        if count <= frames[peer] + 1:
            return False
        newest = next(parked for parked in reversed(self._waiting) if parked.peer == most)
        self._remove(newest)
        self._refuse(newest)
        return True

    def take(self, session: int, peer: PeerID) -> list[bytes]:
        """What has come from `peer` for `session`, in order."""
        taken = [parked for parked in self._waiting if (parked.session, parked.peer) == (session, peer)]
        for parked in taken:
            self._remove(parked)
        return [parked.payload for parked in taken]

    def _expire(self, parked: Parked) -> None:
        if parked in self._waiting:
            self._remove(parked)
            self._refuse(parked)

    def _remove(self, parked: Parked) -> None:
        self._waiting.remove(parked)
        self._bytes -= len(parked.payload)
