"""python -m tests.ledger.ingest URL FOLDER: send everything to the ledger again and again, until killed.

It says on stdout what it was promised to be durable: lines `total LINE SEQ`, `paid ID` and `signed SIZE`.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nectar_ledger.core.machine import Answer, Outcome
from nectar_ledger.log.published import Published
from nectar_ledger.log.signer import Signer
from nectar_ledger.store.database import Database
from nectar_ledger.store.engines import open_database
from nectar_ledger.store.sequencer import Sequencer, unix_ms
from nectar_protocol.checkpoint import Checkpoint
from nectar_protocol.identity import Identity

from tests.ledger.till import TABLES, Command, Payment, Till, Total

THREADS, LINES_EACH, SEQS = 4, 10, 60
LINES = THREADS * LINES_EACH
IDENTITY = Identity.from_seed(bytes(32))
ORIGIN = "ledger.example/test"

Say = Callable[[str], object]


def open_signer(database: Database, folder: Path) -> Signer:
    return Signer(database, ORIGIN, IDENTITY, Published(folder / "published"), unix_ms)


def batches(thread: int) -> Iterator[list[Command]]:
    """A thread's own lines, each with its running totals, and payments of what they brought."""
    mine = range(thread * LINES_EACH, (thread + 1) * LINES_EACH)
    for seq in range(1, SEQS + 1):
        payment = Payment(bytes([thread, seq] * 8), thread % 4, (thread + 1) % 4, 1)
        yield [*(Total(line, seq, seq * (line + 1)) for line in mine), payment]


def ingest(database: Database, folder: Path, say: Say) -> None:
    """All there is to send, by several threads, while the log is signed."""
    sequencer = Sequencer(database, TABLES, Till)
    signer, done = open_signer(database, folder), threading.Event()

    def sign() -> None:
        while True:
            last = done.wait(0.02)
            say(f"signed {Checkpoint.parse(signer.sign().text).size}\n")
            if last:
                return

    def send(thread: int) -> None:
        for batch in batches(thread):
            outcomes = sequencer.submit(batch).result()
            say("".join(map(_acknowledgement, batch, outcomes)))

    with ThreadPoolExecutor(THREADS + 1) as pool:
        signing = pool.submit(sign)
        try:
            for sending in [pool.submit(send, thread) for thread in range(THREADS)]:
                sending.result()
        finally:
            done.set()
        signing.result()
    sequencer.close()


def _acknowledgement(command: Command, outcome: Outcome) -> str:
    match command, outcome:
        case Total(line, seq), Answer():
            return f"total {line} {seq}\n"
        case Payment(id), Answer():
            return f"paid {id.hex()}\n"
    return ""


if __name__ == "__main__":
    while True:
        ingest(open_database(sys.argv[1]), Path(sys.argv[2]), lambda text: os.write(1, text.encode()))
