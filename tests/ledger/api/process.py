"""A served ledger as a process of its own: `python -m tests.ledger.api.process FOLDER [PORT]`. Prints its URL."""

import sys
from pathlib import Path

from nectar_ledger.api.app import create_app
from nectar_ledger.server import serve

from tests.ledger.api.served import NO_LIMITS, Clock, open_service, usual
from tests.ledger.world import World


def main(folder: Path, port: int = 0) -> None:
    world = World()
    service = open_service(folder, world, Clock())
    service.submit(usual(world)).result()
    serve(create_app(service, NO_LIMITS), "127.0.0.1", port, lambda url: print(url, flush=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
