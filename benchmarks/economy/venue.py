"""A ledger and real nodes that take its holds, each a process of its own, with a payer who has enough."""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nectar.connection import Connection
from nectar.model import AutoDistributedModelForCausalLM
from nectar_demo.cast import earning, model_entry
from nectar_demo.processes import NodeProcess
from nectar_ledger.home import Home, Role
from nectar_ledger.store.sequencer import unix_ms
from nectar_ledger_client.client import LedgerClient
from nectar_ledger_client.errors import RefusedError
from nectar_protocol.commands import FundPurse, Grant, PublishModel
from nectar_protocol.identity import Identity, PeerID, parse_peer_id
from nectar_protocol.manifest import ModelID
from nectar_swarm.keyfile import load_or_create_key
from nectar_swarm.source import open_source

from benchmarks.ledgers import NETWORK, ledger_id, record, serving
from benchmarks.models import SIZES, make_llama
from benchmarks.nursery import nursery
from benchmarks.people import COMMAND_MS, GRANT_UCR, POLICY, new_id

BOUND_S = 30.0


class UnboundError(Exception):
    """A node earns nothing on the ledger."""


@dataclass(frozen=True)
class Stage:
    """A node for all blocks of a model of `benchmarks.models`, in a profile."""

    size: str
    profile: str = "f32"

    @property
    def blocks(self) -> int:
        return int(SIZES[self.size]["num_hidden_layers"])

    @property
    def width(self) -> int:
        return int(SIZES[self.size]["hidden_size"])


@dataclass(frozen=True)
class Place:
    """A node that serves alone in its swarm and takes the ledger's holds. `wallet` is the payer's key file."""

    stage: Stage
    model: Path
    id: ModelID
    node: NodeProcess
    ledger: str
    wallet: Path

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        connection = Connection.open([self.node.address])
        try:
            yield connection
        finally:
            connection.close()

    def client(self, connection: Connection, *, pays: bool) -> Any:
        """The model of a client of the node; with `pays`, one that takes holds of the ledger for all its sessions."""
        ledger, wallet = (self.ledger, self.wallet) if pays else (None, None)
        return AutoDistributedModelForCausalLM.from_pretrained(
            str(self.model), connection=connection, ledger=ledger, wallet=wallet
        )


@contextmanager
def open_places(stages: Mapping[str, Stage]) -> Iterator[dict[str, Place]]:
    """All of them, side by side, with one ledger: an idle node disturbs nobody. Raises UnboundError."""
    with tempfile.TemporaryDirectory(prefix="nectar-bench-", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        folder = Path(name)
        os.environ["NECTAR_CACHE"] = str(folder / "cache")  # digests of files that nobody sees again
        within = stack.enter_context(nursery(folder))
        models = {size: make_llama(size, folder) for size in sorted({stage.size for stage in stages.values()})}
        ids = {size: open_source(str(path), "main").manifest.model_id for size, path in models.items()}
        wallet, owner = folder / "wallet.key", folder / "owner.key"
        home = found(folder / "ledger", list(models.values()), load_or_create_key(wallet))
        ledger = stack.enter_context(serving(home)).url
        nodes: dict[str, NodeProcess] = {}

        for key, stage in stages.items():
            options = [*earning(ledger, owner), "--profile", stage.profile, "--drain", "0"]
            blocks = f"0:{stage.blocks}"
            nodes[key] = NodeProcess(key, folder, models[stage.size], blocks, options=options, within=within)
            stack.callback(nodes[key].stop)
        for node in nodes.values():
            await_binding(ledger, node.wait())
        yield {
            key: Place(stages[key], models[stages[key].size], ids[stages[key].size], node, ledger, wallet)
            for key, node in nodes.items()
        }


def await_binding(ledger: str, node: NodeProcess) -> None:
    """Until the node takes holds. Raises UnboundError."""
    deadline_s = time.monotonic() + BOUND_S
    with LedgerClient(ledger) as client:
        while time.monotonic() < deadline_s:
            try:
                client.node(parse_peer_id(PeerID(node.peer)))
            except RefusedError:
                time.sleep(0.1)
            else:
                return
    raise UnboundError(f"{node.name} was not bound within {BOUND_S:.0f} s; see {node.log}")


def found(root: Path, models: list[Path], payer: Identity) -> Home:
    """A ledger that knows these models, and in which the payer has a full purse."""
    home = Home.create(root, NETWORK, POLICY)
    operator, publisher = home.identity(Role.OPERATOR), home.identity(Role.POLICY)
    ledger, expires_ms = ledger_id(home), unix_ms() + COMMAND_MS
    commands = []
    for model in models:
        publish = PublishModel(ledger, new_id(), expires_ms, publisher.public, model_entry(model))
        commands.append(publish.signed(publisher))
    grant = Grant(ledger, new_id(), expires_ms, operator.public, payer.public, GRANT_UCR)
    record(home, [
        *commands, grant.signed(operator),
        FundPurse(ledger, new_id(), expires_ms, payer.public, GRANT_UCR).signed(payer),
    ])  # fmt: skip
    return home
