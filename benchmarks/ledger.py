"""How near does a ledger come to what its signatures cost?

A receipt has two signatures, so twice the time of a verification is the least that a receipt can cost. That time is
measured while the ledger works, and both are CPU time, so that other work on the machine disturbs both alike. The
ledger is a real `nectar ledger serve` with its limits as they come; on PostgreSQL the database's CPU time counts too.
Receipts come over HTTP in batches, each a node's own and signed by it, from another process that has signed the
receipts beforehand; each is newer than the last one of its line, so each is verified.

    python -m benchmarks.ledger [--quick] [--json]
"""

import argparse
import gc
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from nectar_ledger.audit.replay import Replay
from nectar_ledger.home import Home
from nectar_ledger.store.scan import Part, read_parts

from benchmarks.generator import GeneratorProcess, Settings, generating
from benchmarks.ledgers import LedgerProcess, connected, found, ledger_id, serving
from benchmarks.people import People
from benchmarks.postgres import start_postgres
from benchmarks.report import Key, print_json, print_table
from benchmarks.usage import VerificationClock, cpu_s

SEED = 1
NODES, PAYERS = 4, 8
CONNECTIONS = 4
OPENERS = 16
REPLAYS = 3
BATCH, SMALL_BATCH = 1000, 100
SQLITE, POSTGRES = "sqlite", "postgres"
KEYS = (
    Key("limit_ratio_sqlite", f"SQLite, batches of {BATCH}: 2 verifications / CPU of a receipt", 0.65, True),
    Key("limit_ratio_postgres", f"PostgreSQL, batches of {BATCH}: the same, its CPU included", 0.50, True),
    Key("p99_ms_half_load", f"SQLite, batches of {SMALL_BATCH}, open loop at half of capacity: p99", 100),
    Key("holds_per_s", f"SQLite: paid holds with {NODES} lines opened, per second", 300, True),
    Key("replay_entries_per_s", "entries replayed per second of CPU, invariants on, without signatures", 100_000, True),
)


@dataclass(frozen=True)
class Scale:
    """How many holds are open, rounds with a receipt for each line of them, and such rounds at half load."""

    holds: int
    rounds: int
    half_load_rounds: int


FULL, QUICK = Scale(4_000, 12, 6), Scale(1_000, 5, 3)


class Measurements:
    """`values` has those of the keys, `raw` the medians behind them."""

    def __init__(self, scale: Scale, tell: Callable[[str], None]) -> None:
        self.scale, self._tell = scale, tell
        self.people = People(SEED, NODES, scale.holds, PAYERS)
        self.values: dict[str, float] = {}
        self.raw: dict[str, float] = {}

    def run(self, root: Path) -> None:
        with self._loaded(SQLITE, root / SQLITE, f"sqlite:///{root / SQLITE / 'ledger.db'}") as (home, load):
            self._batches(SQLITE, load, [load.ledger.pid])
            self._half_load(load)
        self._replay(home)
        self._tell("starting PostgreSQL …")
        with (
            start_postgres() as server,
            server.database() as url,
            self._loaded(POSTGRES, root / POSTGRES, url) as (home, load),
        ):
            self._batches(POSTGRES, load, [load.ledger.pid, server.pid()])

    @contextmanager
    def _loaded(self, engine: str, root: Path, url: str) -> "Iterator[tuple[Home, Load]]":
        """A ledger with all holds open, and what sends to it."""
        self._tell(f"{engine}: opening {self.scale.holds} holds …")
        home = found(root, url, self.people)
        with serving(home) as ledger, generating(Settings(ledger.url, ledger_id(home), self.people)) as generator:
            before_s = cpu_s(ledger.pid)
            sent = generator.open_holds(OPENERS)
            per_s = self.scale.holds / sent.elapsed_s
            self.raw |= {
                f"{engine}_holds_per_s": per_s,
                f"{engine}_hold_ms": 1e3 * statistics.median(sent.latencies_s),
                f"{engine}_hold_cpu_us": 1e6 * (cpu_s(ledger.pid) - before_s) / self.scale.holds,
            }
            if engine == SQLITE:
                self.values["holds_per_s"] = per_s
            yield home, Load(ledger, generator)

    def _batches(self, engine: str, load: "Load", pids: list[int]) -> None:
        """CPU time of receipts in large batches, against that of verifications; the first round warms up."""
        self._tell(f"{engine}: batches of {BATCH} …")
        rounds: list[Round] = []
        for _ in range(1 + self.scale.rounds):
            count = load.generator.sign(BATCH, 1)
            before_s = [cpu_s(pid) for pid in pids]
            with VerificationClock() as clock:
                sent = load.generator.send(CONNECTIONS)
            spent_us = [1e6 * (cpu_s(pid) - before) / count for pid, before in zip(pids, before_s, strict=True)]
            batch_s = statistics.median(sent.latencies_s)
            rounds.append(Round(clock.verification_us, spent_us, count / sent.elapsed_s, batch_s))
        del rounds[0]
        self.values[f"limit_ratio_{engine}"] = statistics.median(
            2 * one.verification_us / sum(one.spent_us) for one in rounds
        )
        self.raw |= {
            f"{engine}_verification_us": statistics.median(one.verification_us for one in rounds),
            f"{engine}_app_us": statistics.median(one.spent_us[0] for one in rounds),
            f"{engine}_receipts_per_s": statistics.median(one.receipts_per_s for one in rounds),
            f"{engine}_batch_ms": 1e3 * statistics.median(one.batch_s for one in rounds),
        }
        if len(pids) > 1:
            self.raw[f"{engine}_database_us"] = statistics.median(sum(one.spent_us[1:]) for one in rounds)

    def _half_load(self, load: "Load") -> None:
        self._tell(f"half load, batches of {SMALL_BATCH} …")
        capacity = []
        for _ in range(2):
            count = load.generator.sign(SMALL_BATCH, 1)
            capacity.append(count / load.generator.send(CONNECTIONS).elapsed_s)
        batches_per_s = max(capacity) / 2 / SMALL_BATCH
        load.generator.sign(SMALL_BATCH, self.scale.half_load_rounds)
        sent = load.generator.send(OPENERS, batches_per_s)
        self.values["p99_ms_half_load"] = 1e3 * sent.p99_s
        self.raw |= {
            "half_load_receipts_per_s": batches_per_s * SMALL_BATCH,
            "half_load_p50_ms": 1e3 * statistics.median(sent.latencies_s),
            "half_load_batches": len(sent.latencies_s),
        }

    def _replay(self, home: Home) -> None:
        """The whole log into an empty state, by the core alone: neither reading it counts, nor writing rows."""
        self._tell("replaying …")
        with connected(home) as database, database.reading.begin() as connection:
            parts = list(read_parts(connection))
        gc.freeze()  # what the benchmark itself has in memory is not the replay's to walk over
        count = sum(len(part.entries) for part in parts)
        self.values["replay_entries_per_s"] = count / statistics.median(replay_s(parts) for _ in range(REPLAYS))
        self.raw["replayed_entries"] = count


def replay_s(parts: Sequence[Part]) -> float:
    """CPU time of a replay."""
    gc.collect()  # of the one before
    replay, spent_s = Replay(), 0.0
    for part in parts:
        begun_s = time.thread_time()
        replay.take(part)
        spent_s += time.thread_time() - begun_s
        deque(replay.ledger.take_rows(), maxlen=0)
    return spent_s


@dataclass(frozen=True)
class Load:
    ledger: LedgerProcess
    generator: GeneratorProcess


@dataclass(frozen=True)
class Round:
    """`spent_us`: CPU of a receipt in each of the processes."""

    verification_us: float
    spent_us: list[float]
    receipts_per_s: float
    batch_s: float


def run(scale: Scale, tell: Callable[[str], None] = lambda line: None) -> Measurements:
    """Raises DemoError, LoadError, PostgresError."""
    measurements = Measurements(scale, tell)
    with tempfile.TemporaryDirectory(prefix="nectar-bench-", ignore_cleanup_errors=True) as folder:
        measurements.run(Path(folder))
    return measurements


def caption(measured: Measurements) -> str:
    raw = measured.raw
    return (
        f"{measured.scale.holds} holds of {NODES} lines. A verification is {raw['sqlite_verification_us']:.0f} µs. "
        f"A receipt on SQLite {raw['sqlite_app_us']:.0f} µs, {raw['sqlite_receipts_per_s']:,.0f}/s; on PostgreSQL "
        f"{raw['postgres_app_us']:.0f} µs + {raw['postgres_database_us']:.0f} µs of the database, "
        f"{raw['postgres_receipts_per_s']:,.0f}/s."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare what a ledger costs with what its signatures cost.")
    parser.add_argument("--quick", action="store_true", help="within a minute: fewer holds and rounds")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    began_s = time.perf_counter()

    def tell(line: str) -> None:
        print(f"{time.perf_counter() - began_s:5.1f} s  {line}", file=sys.stderr, flush=True)

    measured = run(QUICK if options.quick else FULL, tell)
    if options.json:
        print_json(measured.values, scale=asdict(measured.scale), raw=measured.raw)
    else:
        print_table(KEYS, measured.values, caption(measured))


if __name__ == "__main__":
    main()
