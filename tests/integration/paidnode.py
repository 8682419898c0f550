"""A node that earns, as a process of its own: `python -m tests.integration.paidnode SETTINGS`. Ends with its stdin."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from nectar.cli.node import tell_json
from nectar.cli.service import serve
from nectar_node.node import Node, NodeSettings
from nectar_node.till.office import Ledger
from nectar_protocol.identity import Identity
from nectar_swarm.folder import LocalFolder
from nectar_swarm.host import Listen
from nectar_swarm.peeraddress import PeerAddress


@dataclass(frozen=True)
class Job:
    """What it serves, and for whom: `owner` is the seed of its owner's key, in hex."""

    model: str
    blocks: str
    key_file: str
    ledger: str
    owner: str
    peers: tuple[str, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def main(job: Job) -> None:
    owner = Identity.from_seed(bytes.fromhex(job.owner))
    settings = NodeSettings(
        LocalFolder(Path(job.model)),
        Path(job.key_file),
        Path(job.key_file).stem,
        "0",
        listen=Listen("127.0.0.1"),
        initial_peers=tuple(map(PeerAddress.parse, job.peers)),
        blocks=job.blocks,
        device="cpu",
        threads=1,
        ledger=Ledger(job.ledger, owner.public, owner),
    )
    serve(Node(settings, tell_json).run, until_eof=True)


if __name__ == "__main__":
    main(Job(**json.loads(sys.argv[1])))
