"""A node that earns, as a process of its own: `python -m tests.integration.credits.paidnode JOB`. Ends with stdin."""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from nectar.cli.node import tell_json
from nectar.cli.service import serve
from nectar_node.node import Node, NodeSettings
from nectar_node.till.line import Line
from nectar_node.till.office import Ledger
from nectar_protocol.identity import Identity
from nectar_swarm.bills import Bill
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
    lie: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def learn_to_lie(lie: str) -> None:
    """From now on this process bills what it did not do."""
    bill = Line.bill

    def padded(line: Line, server: Identity, final: bool = False) -> Bill:
        honest = bill(line, server, final)
        receipt = replace(honest.receipt, units=honest.receipt.units + 1000)
        return replace(honest, receipt=receipt, signature=receipt.sign(server))

    def invented(line: Line, server: Identity, final: bool = False) -> Bill:
        honest = bill(line, server, final)
        steps = tuple(replace(step, outputs=[[bytes(32)] * step.positions] * line.rows) for step in honest.steps)
        commitment = honest.receipt.commitment if not steps else bytes(32)
        receipt = replace(honest.receipt, commitment=commitment)
        return replace(honest, steps=steps, receipt=receipt, signature=receipt.sign(server))

    Line.bill = {"units": padded, "outputs": invented}[lie]  # type: ignore[method-assign]


def main(job: Job) -> None:
    if job.lie:
        learn_to_lie(job.lie)
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


class PaidNode:
    """A node process."""

    def __init__(self, job: Job) -> None:
        command = [sys.executable, "-m", "tests.integration.credits.paidnode", job.to_json()]
        with Path(job.key_file).with_suffix(".log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)

    def wait(self) -> "PaidNode":
        assert self.process.stdout is not None
        serving = json.loads(self.process.stdout.readline())
        self.peer, self.address = serving["peer"], serving["addresses"][0]
        return self

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


if __name__ == "__main__":
    main(Job(**json.loads(sys.argv[1])))
