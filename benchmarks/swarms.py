"""Swarms to measure: real `nectar node` processes, and clients of them in this process."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nectar_demo.processes import NodeProcess

from benchmarks.models import make_llama
from benchmarks.nursery import nursery


@dataclass(frozen=True)
class Shape:
    """One node for each span of a model of `benchmarks.models`; every link of nodes and clients takes `delay_ms`."""

    size: str
    spans: tuple[str, ...]
    delay_ms: float = 0.0


class Swarm:
    """Begun by the constructor with its first node; serving after `wait`."""

    def __init__(self, name: str, shape: Shape, model: Path, folder: Path, within: Sequence[str] = ()) -> None:
        self.name, self.shape, self.model, self._folder, self._within = name, shape, model, folder, within
        self.nodes: list[NodeProcess] = []
        self._start(shape.spans[0], [])

    def _start(self, span: str, peers: list[str]) -> None:
        options = ["--link-delay-ms", str(self.shape.delay_ms), "--drain", "0"]
        name = f"{self.name}-{span.replace(':', '-')}"
        self.nodes.append(NodeProcess(name, self._folder, self.model, span, peers, options, self._within))

    def grow(self) -> None:
        """Start the other nodes, once the first serves."""
        first = self.nodes[0].wait()
        for span in self.shape.spans[1:]:
            self._start(span, [first.address])

    def wait(self) -> None:
        for node in self.nodes[1:]:
            node.wait()

    @contextmanager
    def client(self) -> Iterator[Any]:
        """The model of a client that has just joined, with its embeddings and head loaded."""
        from nectar.connection import Connection
        from nectar.model import AutoDistributedModelForCausalLM

        connection = Connection.open([self.nodes[0].address], link_delay_s=self.shape.delay_ms / 1e3)
        try:
            yield AutoDistributedModelForCausalLM.from_pretrained(str(self.model), connection=connection)
        finally:
            connection.close()

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()


@contextmanager
def start_swarms(shapes: Mapping[str, Shape]) -> Iterator[dict[str, Swarm]]:
    """All of them, side by side: an idle node disturbs nobody."""
    with tempfile.TemporaryDirectory(prefix="nectar-bench-", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        folder = Path(name)
        os.environ["NECTAR_CACHE"] = str(folder / "cache")  # digests of files that nobody sees again
        within = stack.enter_context(nursery(folder))
        swarms: dict[str, Swarm] = {}
        for key, shape in sorted(shapes.items(), key=lambda item: item[1].size, reverse=True):  # the small model first
            swarms[key] = Swarm(key, shape, make_llama(shape.size, folder), folder, within)
            stack.callback(swarms[key].stop)
        for swarm in swarms.values():
            swarm.grow()
        for swarm in swarms.values():
            swarm.wait()
        yield swarms
