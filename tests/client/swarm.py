"""Several nodes made by hand, in a loop of their own, and a session's steps beside the same steps done here."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import torch
from nectar.loop import LoopThread
from nectar.session import Session
from nectar_protocol.announcement import NodeState

from tests.client.node import BATCH, BLOCKS, WIDTH, Node, run_block

HANGS_S = 60.0  # a test that waits so long has failed


class Swarm:
    """The nodes, in a loop of their own. The first introduces the others, and clients, to each other."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.thread = folder, LoopThread("nodes")
        self.nodes: list[Node] = []
        self.faults: list[BaseException] = []

    @property
    def address(self) -> str:
        return str(self.nodes[0].at)

    def add(self) -> Node:
        node = Node(self.folder / f"{len(self.nodes)}.key", self.faults)
        self.start(node)
        self.nodes.append(node)
        return node

    def start(self, node: Node) -> None:
        """Begin, or begin again: with the same key on another port."""
        self.run(node.start([other.at for other in self.nodes[:1] if other is not node]))

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.thread.run(work)

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Returns when it has run."""

        async def work() -> None:
            function(*arguments)

        self.run(work())

    def kill(self, *nodes: Node) -> None:
        for node in nodes:
            self.call(node.die)

    def clear(self) -> None:
        """After a test: everybody lives, and nobody serves."""
        for node in self.nodes:
            node.reset()
            node.peers.allowed = None
            if node.expires_ms:
                self.run(node.serve(0, 1, state=NodeState.LEAVING))

    def close(self) -> None:
        async def shut() -> None:
            for node in reversed(self.nodes):
                await node.close()
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:  # hivemind leaves some behind
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        with contextlib.suppress(RuntimeError):
            self.run(shut())
        self.thread.stop()


def eventually(holds: Callable[[], object]) -> None:
    """Wait until it is so; the limit is for tests that fail."""
    deadline_s = time.monotonic() + HANGS_S
    while not holds():
        assert time.monotonic() < deadline_s, "it never came to be so"
        time.sleep(0.01)


class Run:
    """Steps through a session beside the same steps done here; they must agree all along."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.past = torch.zeros(BATCH, 0, WIDTH)
        self.dice = torch.Generator().manual_seed(0)

    def step(self, tokens: int, back: int = 0, reorder: Sequence[int] = ()) -> None:
        position = self.past.shape[1] - back
        hidden = torch.randn(BATCH, tokens, WIDTH, generator=self.dice)
        past = self.past[:, :position]
        self.past = torch.cat([past[list(reorder)] if reorder else past, hidden], 1)
        out = self.session.step(hidden, position, reorder)
        torch.testing.assert_close(out, run_block(self.past, BLOCKS)[:, position:])
        assert self.session.position == self.past.shape[1]
