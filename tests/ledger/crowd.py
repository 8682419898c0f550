"""A ledger's database of any size, for reads alone: written past the core, without signatures, in the core's shapes.

Ten receipts settle each hold and a thousand fill each batch; every hundredth entry pays the one busy payee, and one
busy purse pays for all holds. So whatever is asked for by one of their keys is among as many rows as there can be.
"""

from collections import defaultdict
from collections.abc import Iterator
from hashlib import sha256

import sqlalchemy as sa
from nectar_ledger.core.accounts import AccountKind, Code
from nectar_ledger.core.machine import Row
from nectar_ledger.errors import NotFoundError
from nectar_ledger.store.cosignatures import put_cosignature
from nectar_ledger.store.database import Database
from nectar_ledger.store.edge import Edge
from nectar_ledger.store.reading import add_checkpoint
from nectar_ledger.store.schema import checkpoints, cosignatures, log_entries, log_head, log_tiles
from nectar_ledger.store.tables import TABLES
from nectar_protocol.announcement import Profile
from nectar_protocol.checkpoint import Checkpoint
from nectar_protocol.commands import Outcome, Verdict
from nectar_protocol.entry import FORMAT, HEADER, SETTLE_SIZE, Kind
from nectar_protocol.merkle import Frontier
from nectar_protocol.note import Note, cosign_text
from nectar_protocol.tiles import Tile

from tests.ledger.world import ORIGIN, START_MS, World, person

ENTRIES_AT_ONCE = 25_600
PER_HOLD, PER_BATCH, PER_RELEASE, PER_CHECKPOINT = 10, 1000, 100, 100
NODES, OPEN_HOLDS = 100, 1000
PAYEE, PAYER, BURNED, POOL = 4, 5, 2, 3
FIRST_HOLD = 1000
PAYEE_KEY, PAYER_KEY = person("payee").public, person("payer").public
HASHES = bytes(32)


class Crowd:
    """`count` entries, a multiple of 25,600. `checkpoint` is the newest, which one witness has cosigned."""

    def __init__(self, database: Database, count: int) -> None:
        self.database, self.count = database, count
        self.world = World()
        self.first_batch = FIRST_HOLD + count // PER_HOLD
        self._tables = {table.name: table for table in (*TABLES, log_entries, checkpoints, cosignatures)}
        auditor, node = person("auditor"), person("node 1")
        order = self.world.obey(
            Verdict, auditor, auditor=auditor.public, node=node.public, batch=1, hold=HASHES, start=0, stop=1,
            profile=Profile.F32, outcome=Outcome.PASSED, tokens=1, error_ppm=0, limit_ppm=1, evidence=HASHES,
        )  # fmt: skip
        self._verdict = order.salt + order.signed.pack()
        self._rest = sha256(b"a settlement").digest() * 12
        self._released = 0
        self.checkpoint = self._write()

    def hold_id(self, number: int) -> bytes:
        return sha256(number.to_bytes(8, "big")).digest()

    def node_key(self, number: int) -> bytes:
        return person(f"node {number}").public

    def _write(self) -> Note:
        edge = Edge(Frontier(), 0, _no_tile)
        self._add({"books": [self._books()], "accounts": list(self._own_accounts()), **self._parties()})
        for start in range(0, self.count, ENTRIES_AT_ONCE):
            indexes = range(start, start + ENTRIES_AT_ONCE)
            entries = [self._entry(index) for index in indexes]
            tiles = edge.append(entries, START_MS + indexes[-1])
            rows: dict[str, list[Row]] = defaultdict(list)
            for index, entry in zip(indexes, entries, strict=True):
                rows["log_entries"].append((index, entry))
                self._add_entry(rows, index)
            self._add(rows)
            with self.database.writing.begin() as connection:
                self.database.put(connection, log_tiles, [(*tile, hashes) for tile, hashes in tiles.items()])
        return self._finish(edge)

    def _add(self, rows: dict[str, list[Row]]) -> None:
        with self.database.writing.begin() as connection:
            for name in self._tables:
                if rows.get(name):
                    self.database.add(connection, self._tables[name], rows[name])

    def _finish(self, edge: Edge) -> Note:
        """A head, a checkpoint and its cosignature that are real."""
        note = Checkpoint(ORIGIN, edge.size, edge.frontier.root()).signed(self.world.keys.log)
        with self.database.writing.begin() as connection:
            head = {"size": edge.size, "frontier": edge.frontier.pack(), "time_ms": edge.time_ms}
            connection.execute(sa.update(log_head).values(**head))
            add_checkpoint(connection, edge.size, note, edge.time_ms)
        put_cosignature(self.database, edge.size, cosign_text(note.text, "witness.example", person("witness"), 1))
        return note

    def _entry(self, index: int) -> bytes:
        head = HEADER.pack(FORMAT, Kind.SETTLE, 0, START_MS + index)
        return head + index.to_bytes(8, "big") + self._rest[: SETTLE_SIZE - HEADER.size - 8]

    def _books(self) -> Row:
        keys = self.world.keys
        return 1, self.world.ledger, ORIGIN, keys.holds.public, keys.log.public, 2**40, NODES + 1, 1, START_MS, 0

    def _own_accounts(self) -> Iterator[Row]:
        big = 10**15
        yield 1, AccountKind.EMISSION, None, False, big, 0, 0, None
        yield BURNED, AccountKind.BURNED, None, True, 0, self.count, 0, None
        yield POOL, AccountKind.POOL, None, True, 0, big // 2, 0, None
        yield PAYEE, AccountKind.WALLET, PAYEE_KEY, True, 0, self.count // PER_RELEASE, 0, None
        yield PAYER, AccountKind.WALLET, PAYER_KEY, True, 0, 0, 0, None

    def _parties(self) -> dict[str, list[Row]]:
        policy, model = self.world.policy, self.world.model
        return {
            "nodes": [(number, self.node_key(number), PAYEE, 0, 0) for number in range(1, NODES + 1)],
            "policies": [(policy.version, policy.id, 0, policy.pack())],
            "models": [(model.model, model.version, model.id, 0, model.pack())],
            "purses": [(PAYER, 0, self.count, OPEN_HOLDS)],
        }

    def _add_entry(self, rows: dict[str, list[Row]], index: int) -> None:
        hold, batch = FIRST_HOLD + index // PER_HOLD, self.first_batch + index // PER_BATCH
        node = 1 + index // PER_BATCH % NODES
        rows["settlements"].append((index, hold, node, batch, 10, 9, 1))
        rows["transfers"] += [
            (index << 8, hold, batch, 9, Code.PAY, 0, 0),
            (index << 8 | 1, hold, BURNED, 1, Code.FEE, 0, 0),
        ]
        if index % PER_HOLD == PER_HOLD - 1:
            self._add_hold(rows, index, hold, node)
        if index % PER_RELEASE == PER_RELEASE - 1:
            self._released += 1
            rows["transfers"].append((index << 8 | 2, batch, PAYEE, 1, Code.RELEASE, 0, self._released))
        if index % PER_CHECKPOINT == PER_CHECKPOINT - 1 and index < self.count - 1:
            rows["checkpoints"].append((index + 1, b"-", 0))
            rows["cosignatures"].append((index + 1, "witness.example", "-"))
        if index % PER_BATCH == PER_BATCH - 1 or index == self.count - 1:
            self._add_batch(rows, index, batch, node)

    def _add_hold(self, rows: dict[str, list[Row]], index: int, hold: int, node: int) -> None:
        is_open = self.count - index <= OPEN_HOLDS * PER_HOLD
        closed = None if is_open else index
        rows["accounts"].append((hold, AccountKind.HOLD, None, True, 100, 100, index, closed))
        rows["holds"].append(
            (hold, self.hold_id(hold), PAYER, HASHES, HASHES, 1, HASHES, 1, 31, 1, START_MS, index, index, closed)
        )
        rows["hold_lines"].append((hold, node, 100, 10, 100, not is_open, not is_open, index, bytes(72)))
        rows["purse_lines"].append((PAYER, index, -1, Code.ESCROW, self.count - index))

    def _add_batch(self, rows: dict[str, list[Row]], index: int, batch: int, node: int) -> None:
        is_open = self.count - index <= NODES * PER_BATCH
        state, closed = (1, None) if is_open else (2, index)
        rows["accounts"].append((batch, AccountKind.BATCH, None, True, 0, 9, index, closed))
        rows["batches"].append((batch, node, HASHES, HASHES, START_MS, 10, 0, state, closed))
        rows["epochs"].append((index // PER_BATCH + 1, index, START_MS, START_MS, 0, 0, 0, 0, 0, 0, 0))
        rows["verdicts"] += [(index - n, batch, node, Outcome.PASSED, self._verdict) for n in range(3)]


def _no_tile(tile: Tile) -> bytes:
    raise NotFoundError(f"an empty log has no {tile.path}")
