"""A process that keeps receipts until it is killed: `python -m tests.node.till.writer FILE`.

It flushes after each one, and prints its number when that is done.
"""

import sys
from itertools import count
from pathlib import Path

from nectar_node.till.spool import Spool

from tests.node.till.receipts import signed

LINES = 5


def main(path: Path) -> None:
    spool = Spool(path)
    for number in count(1):
        spool.put(signed(f"line {number % LINES}", number, number), 10**15, number, number)
        spool.save("newest", str(number).encode())
        spool.flush()
        print(number, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
