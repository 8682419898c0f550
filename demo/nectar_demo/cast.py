"""Who takes part in the demo: a ledger, and the nodes of three owners, each a process of its own."""

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nectar_ledger.core.orders import Obey
from nectar_ledger.home import Home, Role, new_salt, read_genesis
from nectar_protocol.commands import PublishModel
from nectar_protocol.modelentry import AuditState, ModelEntry
from nectar_protocol.policy import EXAMPLE, Policy
from nectar_swarm.anatomy import load_config
from nectar_swarm.costs import block_costs
from nectar_swarm.keyfile import load_or_create_key
from nectar_swarm.source import open_source
from rich.console import Console

from nectar_demo import MODEL_FOLDER
from nectar_demo.ledger import LedgerProcess
from nectar_demo.processes import NodeProcess

NODES = (("ada", "0:4"), ("ben", "4:8"), ("cleo", "2:8"))
NETWORK = "ledger.example/demo"
PACE = 5  # of nodes, so that what takes minutes elsewhere is seen here
COMMAND_MS = 300_000
# A swarm of friends, whose epochs last for seconds. A thousand tokens of the small model cost about 23 credits.
POLICY = replace(
    EXAMPLE,
    price=1_000_000_000,
    emission_price=1_000_000_000,
    emission_ucr=100_000_000,
    epoch_ms=4_000,
    batch_ms=2_000,
    batch_units=1,
)


@dataclass
class Cast:
    """All processes of the demo; `stop` ends them, whatever state they are in."""

    folder: Path
    ledger: LedgerProcess | None = None
    nodes: list[NodeProcess] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The ledger's."""
        return "" if self.ledger is None else self.ledger.url

    @property
    def addresses(self) -> list[str]:
        return [node.address for node in self.nodes if node.serving and node.alive]

    def wallet(self, name: str) -> Path:
        """An owner's key, in a folder of the owner's own."""
        return self.folder / "owners" / name / "wallet.key"

    def start(self, console: Console) -> None:
        """Raises DemoError if something does not start."""
        self.ledger = LedgerProcess(found_ledger(self.folder / "ledger")).wait()
        console.print(f"  ledger of [bold]{NETWORK}[/]  [dim]{self.url}[/]")
        for name, blocks in NODES:
            self.add_node(name, blocks)
            if len(self.nodes) == 1:
                self.nodes[0].wait()
        for node in self.nodes:
            if not node.serving:
                node.wait()
            console.print(introduce(node))

    def add_node(self, name: str, blocks: str) -> NodeProcess:
        """Begin to start a node of this owner. The first one starts a swarm, the others join it."""
        options = [*earning(self.url, self.wallet(name)), "--pace", str(PACE)]
        node = NodeProcess(name, self.folder, MODEL_FOLDER, blocks, self.addresses[:1], options)
        self.nodes.append(node)
        return node

    def restart(self, name: str) -> NodeProcess:
        """Start a node again that was killed: it has its key, and the receipts that it had not posted."""
        old = next(node for node in self.nodes if node.name == name)
        old.stop()
        self.nodes.remove(old)
        return self.add_node(name, old.blocks or "")

    def names(self) -> dict[str, str]:
        """Of nodes, by peer ID."""
        return {node.peer: node.name for node in self.nodes if node.serving}

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()
        if self.ledger is not None:
            self.ledger.kill()


def found_ledger(root: Path, model: Path = MODEL_FOLDER, policy: Policy = POLICY) -> Home:
    """A new ledger that knows a model and what its blocks cost."""
    home = Home.create(root, NETWORK, policy)
    publisher = home.identity(Role.POLICY)
    database = home.database()
    try:
        id, expires_ms = secrets.token_bytes(16), time.time_ns() // 1_000_000 + COMMAND_MS
        command = PublishModel(read_genesis(database)[0], id, expires_ms, publisher.public, model_entry(model))
        home.record(database, [Obey(command.signed(publisher), new_salt())])
    finally:
        database.writing.dispose()
    return home


def model_entry(model: Path) -> ModelEntry:
    """The first version of what the blocks of the model in a folder cost."""
    source = open_source(str(model), "main")
    return ModelEntry(source.manifest.model_id, 1, AuditState.SHADOW, block_costs(load_config(source)))


def earning(url: str, key_file: Path) -> list[str]:
    """The options of a node that earns for the account with this key, which is made if there is none."""
    owner = load_or_create_key(key_file).public.hex()
    return ["--ledger", url, "--owner", owner, "--owner-key", str(key_file)]


def introduce(node: NodeProcess) -> str:
    """A line about a node, with its blocks drawn to scale."""
    start, stop = node.serving["start"], node.serving["stop"]
    drawn = "·" * start + "━" * (stop - start) + "·" * (node.serving["blocks"] - stop)
    return f"  {node.name:5} serves blocks {node.blocks}  [yellow]{drawn}[/]  [dim]{node.peer}[/]"


def introductions(nodes: Sequence[NodeProcess]) -> list[str]:
    return [introduce(node) for node in nodes if node.serving]
