"""Does a ledger keep what it confirms, whoever is killed? kill -9 in the middle of ingest, and everything sent again.

Each round loads a running `nectar ledger serve` with newer receipts and with holds to open, and kills it after a number
of answers that is drawn from the seed; every second round on PostgreSQL stops the database instead, at once, and the
ledger must end by itself. Then all that was confirmed is looked for in the log, everything is sent twice more to a
ledger that was started again, and the log and the tables are audited. The log goes on from round to round.

    python -m benchmarks.crash [--rounds 20] [--seed 0] [--quick] [--json]
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nectar_ledger.audit.verify import verify
from nectar_ledger.store.sequencer import EX_TEMPFAIL, unix_ms

from benchmarks.ledgers import LedgerProcess, connected, found, ledger_id, open_holds, serving
from benchmarks.people import People, sign_receipt
from benchmarks.postgres import PostgresServer, start_postgres
from benchmarks.promises import Promises, Record
from benchmarks.report import Key, print_json, print_table
from benchmarks.requests import Request, send

NODES, HOLDS, BATCH, CONNECTIONS = 4, 100, 50, 8
SEQS = 10  # of each line in a round
OPENINGS = 20  # holds to open in a round
PATIENCE_S = 60.0
DELAY_S = 0.05  # at most, from the answer that was waited for to the kill
KEYS = (
    Key("rounds", "kills during ingest", 3, True),
    Key("lost", "confirmed receipts and holds that are not in the log", 0),
    Key("counted_twice", "receipts and holds that count more than once", 0),
    Key("findings", "what an audit of the log and the tables finds", 0),
)


class CrashError(Exception):
    """A round did not go as it must, apart from what is lost or counted twice."""


@dataclass(frozen=True)
class Round:
    """What became of one. `confirmed` requests had been answered when `killed` was, and the log had `size` entries."""

    engine: str
    number: int
    killed: str
    confirmed: int
    size: int
    lost: int
    counted_twice: int
    findings: int


class Campaign:
    """Rounds on one ledger. `server` is the PostgreSQL that it uses, if that may be stopped."""

    def __init__(self, root: Path, database_url: str, seed: int, server: PostgresServer | None = None) -> None:
        self._random, self._server = random.Random(seed), server
        self._people = People(seed, NODES, HOLDS)
        self.home = found(root, database_url, self._people)
        self._ledger = ledger_id(self.home)
        self._holds = open_holds(self.home, self._people)
        self._asked = HOLDS
        self._seq = 0

    def play(self, number: int) -> Round:
        """One round. Raises CrashError, DemoError."""
        requests, promises = self.requests(), Promises()
        stops_database = self._server is not None and number % 2 == 1
        with serving(self.home) as process:
            load = threading.Thread(target=send, args=(process.url, requests, CONNECTIONS, None, promises.keep))
            load.start()
            promises.wait(self._random.randint(1, len(requests) * 2 // 3), PATIENCE_S)
            time.sleep(self._random.uniform(0, DELAY_S))
            if stops_database:
                self._stop_database(process)
            else:
                process.kill()
            load.join()
        confirmed, crashed = promises.answers, Record.read(self.home)
        lost, findings = crashed.lost(promises), self._audit()
        twice = self._send_twice(requests, promises)
        return Round(
            "sqlite" if self.home.database_url.startswith("sqlite") else "postgres",
            number,
            "database" if stops_database else "ledger",
            confirmed,
            len(crashed.entries),
            lost + twice.lost(promises) + self._missing(twice),
            crashed.counted_twice + twice.counted_twice,
            findings + self._audit(),
        )

    def requests(self) -> list[Request]:
        """Newer receipts for every line, in order, with commands among them."""
        requests = []
        for seq in range(self._seq + 1, self._seq + SEQS + 1):
            for first in range(0, HOLDS, BATCH):
                requests += [self._batch(number, seq, range(first, first + BATCH)) for number in range(NODES)]
        self._seq += SEQS
        for _ in range(OPENINGS):
            requests.insert(self._random.randrange(len(requests)), self._opening())
        return requests

    def _batch(self, number: int, seq: int, holds: range) -> Request:
        node, session = self._people.node(number), self._people.session
        receipts = (sign_receipt(self._holds[hold], node, session(hold), seq) for hold in holds)
        return Request("/v1/receipts", b"".join(receipts), node)

    def _opening(self) -> Request:
        self._asked += 1
        return Request("/v1/commands", self._people.opening(self._ledger, self._asked - 1, unix_ms()).pack())

    def _stop_database(self, process: LedgerProcess) -> None:
        """Raises CrashError unless the ledger ends by itself, so that it is started again."""
        assert self._server is not None
        self._server.stop_immediately()
        try:
            code = process.ended()
        finally:
            self._server.start_again()
        if code != EX_TEMPFAIL:
            raise CrashError(f"without its database the ledger ended with {code}: {process.said()[-2000:]}")

    def _send_twice(self, requests: Sequence[Request], promises: Promises) -> Record:
        """Send everything again to a new process, and once more, which changes nothing. Raises CrashError."""
        with serving(self.home) as process:
            _send_all(process, requests, promises)
            once = Record.read(self.home)
            _send_all(process, requests, promises)
            twice = Record.read(self.home)
            if process.stop() != 0:
                raise CrashError(f"the ledger did not end well when it was asked to: {process.said()[-2000:]}")
        if once.entries != twice.entries:
            raise CrashError(f"what was sent again has made {len(twice.entries) - len(once.entries)} more entries")
        return twice

    def _missing(self, record: Record) -> int:
        """Lines and holds that are not there though everything has been sent."""
        lines = ((hold.id, self._people.node(number).public) for hold in self._holds for number in range(NODES))
        return sum(record.seqs.get(line) != self._seq for line in lines) + self._asked - record.holds

    def _audit(self) -> int:
        """How much is wrong with the log and the tables. Signatures were verified when they came."""
        with connected(self.home) as database:
            return verify(database, self.home.published.read(), signatures=False).found


def _send_all(process: LedgerProcess, requests: Sequence[Request], promises: Promises) -> None:
    sent = send(process.url, requests, CONNECTIONS, on_answer=promises.keep)
    if sent.failures:
        raise CrashError(f"{len(sent.failures)} requests failed, such as: {sent.failures[0]}")


def play(rounds: int, seed: int, tell: Callable[[Round], None] = lambda played: None) -> list[Round]:
    """So many rounds on each engine. Raises CrashError, DemoError, PostgresError."""
    played = []
    with tempfile.TemporaryDirectory(prefix="nectar-bench-") as name:
        for campaign in _campaigns(Path(name), seed):
            for number in range(rounds):
                played.append(campaign.play(number))
                tell(played[-1])
    return played


def _campaigns(folder: Path, seed: int) -> Iterator[Campaign]:
    yield Campaign(folder / "sqlite", f"sqlite:///{folder / 'sqlite' / 'ledger.db'}", seed)
    with start_postgres() as server, server.database() as url:
        yield Campaign(folder / "postgres", url, seed, server if server.is_ours else None)


def describe(played: Round) -> str:
    return (
        f"{played.engine} {played.number:2}: {played.killed} killed after {played.confirmed} answers at {played.size} "
        f"entries; {played.lost} lost, {played.counted_twice} counted twice, {played.findings} findings"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill a ledger in the middle of ingest, and count what is lost.")
    parser.add_argument("--rounds", type=int, default=20, help="on each engine")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="two rounds on each engine")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds
    played = play(rounds, options.seed, lambda one: print(describe(one), file=sys.stderr, flush=True))
    values = {"rounds": len(played)} | {
        key: sum(getattr(one, key) for one in played) for key in ("lost", "counted_twice", "findings")
    }
    if options.json:
        print_json(values, details=[asdict(one) for one in played])
    else:
        print_table(KEYS, values, f"Seed {options.seed}, {rounds} rounds on each engine.")


if __name__ == "__main__":
    main()
