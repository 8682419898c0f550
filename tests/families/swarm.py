"""A real swarm of two nodes in this process: real p2pd, links and sessions on loopback, no start of interpreters."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from nectar import AutoDistributedModelForCausalLM, Connection
from nectar_node.node import Node, NodeSettings, Serving
from nectar_swarm.folder import LocalFolder
from nectar_swarm.host import Listen
from nectar_swarm.peeraddress import PeerAddress
from nectar_swarm.reachability import Reachability
from nectar_swarm.source import Source

START_S = 60.0  # a test that waits so long has failed


@contextmanager
def running(source: Source, blocks: str, key_file: Path, *peers: PeerAddress) -> Iterator[Serving]:
    """A node of these blocks in a thread of its own, once it serves."""
    threads = torch.get_num_threads()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    told = threading.Event()
    serving: list[Serving] = []
    errors: list[BaseException] = []

    def on_serving(what: Serving) -> None:
        serving.append(what)
        told.set()

    def live() -> None:
        settings = NodeSettings(
            source, key_file, blocks, "0.0.1", listen=Listen("127.0.0.1"), initial_peers=peers,
            blocks=blocks, reachability=Reachability.PUBLIC, device="cpu", kv_tokens=4096, drain_s=0.0,
        )  # fmt: skip
        try:
            loop.run_until_complete(Node(settings, on_serving).run(stop))
        except BaseException as error:
            errors.append(error)
        finally:
            told.set()

    thread = threading.Thread(target=live, name=f"node {blocks}")
    thread.start()
    try:
        told.wait(START_S)
        if errors:
            raise errors[0]
        yield serving[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
        torch.set_num_threads(threads)


@contextmanager
def two_nodes(folder: Path, keys: Path, blocks: int) -> Iterator[Any]:
    """A client's model on a swarm of two nodes, which serve half of the blocks each."""
    source, middle = LocalFolder(folder), blocks // 2
    with ExitStack() as stack:
        first = stack.enter_context(running(source, f"0:{middle}", keys / "first.key"))
        peer = PeerAddress(first.peer, first.addresses)
        stack.enter_context(running(source, f"{middle}:{blocks}", keys / "second.key", peer))
        connection = Connection.open([peer])
        stack.callback(connection.close)
        yield AutoDistributedModelForCausalLM.from_pretrained(str(folder), connection=connection)
