"""The records that this peer keeps for others: only so many, and none longer than it lives.

What came first stays until it expires, and its node may renew it: whoever floods a full shelf with new names pushes
nobody out. Our own records always have room.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgpack
from hivemind.dht.routing import DHTID
from hivemind.utils.timed_storage import get_dht_time
from nectar_protocol.identity import PeerID

from nectar_swarm.answers import DICTIONARY, Stored

MAX_PER_KEY, MAX_RECORDS = 2048, 16_384
MAX_PER_PEER = 8  # a node needs two, and two more when it serves another model
SWEEP_S = 1.0


class _Kept(NamedTuple):
    value: bytes
    expires_s: float
    by: PeerID | None  # who brought it; None: ourselves


class Shelf:
    """Stands for hivemind's storage, which has no bounds, and whose records a stranger can cut short by storing an
    older one again. Holds what has been verified."""

    def __init__(self, clock: Callable[[], float] = get_dht_time) -> None:
        self._clock = clock
        self._swept_s = clock()
        self._places: dict[DHTID, dict[object, _Kept]] = {}
        self._brought: Counter[PeerID | None] = Counter()
        self._packed: dict[DHTID, tuple[bytes, float]] = {}

    @property
    def count(self) -> int:
        return self._brought.total()

    def store(self, key: DHTID, value: bytes, expires_s: float, subkey: object, by: PeerID | None = None) -> bool:
        """Keep a record that a peer has brought, or one of our own; False if there is no room, or one that lives
        longer."""
        if not self.has_room(key, subkey, expires_s, by):
            return False
        place = self._places.setdefault(key, {})
        if subkey in place:
            self._brought[place[subkey].by] -= 1
        self._brought[by] += 1
        place[subkey] = _Kept(value, expires_s, by)
        self._packed.pop(key, None)
        return True

    def has_room(self, key: DHTID, subkey: object, expires_s: float, by: PeerID | None = None) -> bool:
        """Would a record be kept? Asked before its signature is verified."""
        now_s = self._clock()
        if now_s - self._swept_s > SWEEP_S:
            self._sweep(now_s)
        place = self._places.get(key, {})
        there = place.get(subkey)
        if subkey is None or expires_s <= now_s or (there is not None and expires_s < there.expires_s):
            return False
        if by is None or (there is not None and there.by == by):
            return True
        if self._brought[by] >= MAX_PER_PEER:
            return False
        return there is not None or (len(place) < MAX_PER_KEY and self.count < MAX_RECORDS)

    def records(self, key: DHTID) -> list[Stored]:
        return [Stored(subkey, kept.value, kept.expires_s) for subkey, kept in self._places.get(key, {}).items()]

    def size(self, key: DHTID) -> int:
        """How many records lie under a key."""
        return len(self._places.get(key, ()))

    def answer(self, key: DHTID) -> tuple[bytes, float] | None:
        """What hivemind's `rpc_find` answers: all records under a key, packed, and when the last of them expires."""
        if key in self._places and key not in self._packed:
            records = self.records(key)
            last_s = max(record.expires_s for record in records)
            packed = msgpack.packb([float("inf"), last_s, records])
            self._packed[key] = msgpack.packb(msgpack.ExtType(DICTIONARY, packed)), last_s
        return self._packed.get(key)

    def items(self) -> Iterator[tuple[DHTID, object]]:
        """Nothing: what hivemind would hand to every peer that it meets for the first time is renewed in half a minute
        by its owner, and a stranger could have it all sent again and again."""
        return iter(())

    def _sweep(self, now_s: float) -> None:
        self._swept_s = now_s
        for key, place in list(self._places.items()):
            alive = {subkey: kept for subkey, kept in place.items() if kept.expires_s > now_s}
            if len(alive) < len(place):
                self._packed.pop(key, None)
            if alive:
                self._places[key] = alive
            else:
                del self._places[key]
        self._brought = Counter(kept.by for place in self._places.values() for kept in place.values())
