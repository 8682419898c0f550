"""A node as its operator starts it, with a ledger: bound by its owner's key, it is paid for a session and shows it."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from nectar_demo.processes import NodeProcess
from nectar_ledger_client.client import LedgerClient
from nectar_protocol.identity import Identity
from nectar_protocol.modelentry import AuditState, BlockCost, ModelEntry
from nectar_swarm.folder import LocalFolder
from nectar_swarm.host import Host
from nectar_swarm.keyfile import create_key, load_key
from nectar_swarm.messages import Step
from nectar_swarm.peeraddress import PeerAddress

from tests.ledger.api.served import ALICE, LIFE_MS, Clock, Served, serve, usual
from tests.ledger.world import World, person
from tests.node.service.payers import Payer
from tests.node.service.peers import HANGS_S, HandMade

BLOCKS, WIDTH, PROMPT, TOKENS = 8, 256, 6, 20
OWNER, SESSION = person("the operator's account"), "a session that pays"
CAP = 10**9


@dataclass
class Site:
    folder: Path
    ledger: Served
    node: NodeProcess

    @property
    def identity(self) -> Identity:
        return load_key(self.folder / "earner.key")

    def status(self) -> dict[str, Any]:
        """What `nectar node status` says."""
        command = [sys.executable, "-m", "nectar.cli", "node", "status", "--json", "--ledger", self.ledger.url]
        done = subprocess.run(
            [*command, "--key", str(self.folder / "earner.key")], capture_output=True, text=True, check=True
        )
        told: dict[str, Any] = json.loads(done.stdout)
        return told


@pytest.fixture
def site(tiny_llama: Path, tmp_path: Path) -> Iterator[Site]:
    now_ms = time.time_ns() // 1_000_000
    model = LocalFolder(tiny_llama).manifest.model_id
    entry = ModelEntry(model, 1, AuditState.SHADOW, (BlockCost(20_000_000, 4_000),) * BLOCKS)
    world = World(model=entry, start_ms=now_ms)
    (tmp_path / "ledger").mkdir()
    ledger, stop = serve(tmp_path / "ledger", world, orders=usual(world), clock=Clock(now_ms))
    create_key(tmp_path / "owner.key", OWNER)
    options = ["--ledger", ledger.url, "--owner-key", str(tmp_path / "owner.key")]
    node = NodeProcess("earner", tmp_path, tiny_llama, f"0:{BLOCKS}", options=options).wait()
    yield Site(tmp_path, ledger, node)
    node.stop()
    stop()


async def test_a_session_is_paid_and_its_node_shows_it(site: Site) -> None:
    world, node = site.ledger.world, site.identity
    address = PeerAddress.parse(site.node.address)
    host = await Host.start()
    client = HandMade(host)
    await client.peers.start()
    client.link = await client.peers.connect(address.peer, address.addresses)
    async with asyncio.timeout(HANGS_S):
        while (await client.status()).ledger != world.ledger:  # it binds itself meanwhile
            await asyncio.sleep(0.1)
    hold = site.ledger.open(world.open_hold(ALICE, person(SESSION), {node: CAP}, site.ledger.clock() + LIFE_MS))
    payer = Payer(client, SESSION, hold, world, node.public)
    await play(payer)
    await client.peers.close()
    await host.close()
    assert payer.receipt is not None
    with LedgerClient(site.ledger.url) as ledger:
        async with asyncio.timeout(HANGS_S):
            while ledger.hold(hold.id).lines[0].receipt != payer.receipt:
                await asyncio.sleep(0.1)
        pending_ucr = ledger.node(node.public).pending_ucr
    status = site.status()
    assert status["units"] == payer.receipt.receipt.units
    assert (status["sessions"], status["tokens"]) == (1, PROMPT + TOKENS)
    assert status["earned_ucr"] == pending_ucr > 0
    assert (status["paid"]["payee"], status["paid"]["pending_ucr"]) == (OWNER.public.hex(), pending_ucr)


async def play(payer: Payer) -> None:
    """A prompt, then single tokens, then the end; the bills must be right."""
    await payer.open(model=payer.world.model.model, start=0, stop=BLOCKS, max_length=32)
    hidden = torch.randn(1, PROMPT + TOKENS, WIDTH, generator=torch.Generator().manual_seed(0))
    steps, answers, position = list[Step](), list[Step](), 0
    for at, piece in enumerate(hidden.split([PROMPT, *[1] * TOKENS], 1), 1):
        steps.append(Step(at, at, position, piece))
        answers.append(await payer.step(steps[-1]))
        position += piece.shape[1]
    await payer.close()
    payer.check(steps, answers)
