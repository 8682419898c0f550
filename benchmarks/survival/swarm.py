"""The swarm under fire: every span on several nodes, each a process with a p2pd of its own."""

import contextlib
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nectar.connection import Connection
from nectar.scout import Effort
from nectar_demo.cast import earning, found_ledger
from nectar_demo.errors import DemoError
from nectar_demo.ledger import LedgerProcess
from nectar_demo.processes import NodeProcess
from nectar_swarm.errors import SwarmError

READY_S, LOOK_S = 180.0, 0.3


class Replica:
    """One place in the swarm, and the node process that fills it at present. A new one starts by itself."""

    def __init__(self, name: str, span: str, start: Callable[[str, str], NodeProcess]) -> None:
        self.name, self.span, self._start = name, span, start
        self.fill()

    def fill(self) -> None:
        self.process = self._start(self.name, self.span)
        self._waiting = threading.Thread(target=self._wait, daemon=True)
        self._waiting.start()

    def _wait(self) -> None:
        with contextlib.suppress(DemoError):  # it has ended then, and is started anew
            self.process.wait()

    def wait(self) -> None:
        """Until the node serves. Raises DemoError if it has ended instead."""
        self._waiting.join()
        if not self.serving:
            raise DemoError(f"node {self.name} did not start; see {self.process.log}")

    @property
    def serving(self) -> bool:
        return not self._waiting.is_alive() and self.process.alive and bool(self.process.serving)

    @property
    def ended(self) -> bool:
        return not self._waiting.is_alive() and not self.process.alive

    def stop(self) -> None:
        self.process.kill()
        self._waiting.join()  # it reads what we are about to close
        self.process.stop()


class Swarm:
    """Made by `swarm`; all nodes serve then. `heal` brings back what has ended. `ledger` is the address of one."""

    def __init__(
        self, model: Path, folder: Path, spans: Sequence[str], replicas: int, ledger: str | None = None
    ) -> None:
        self.model, self._folder, self.ledger = model, folder, ledger
        self.places: list[Replica] = []
        try:
            for span in spans:
                for number in range(replicas):
                    self.places.append(Replica(f"{span.replace(':', '-')}-{number}", span, self._start))
                    if len(self.places) == 1:
                        self.places[0].wait()
            for place in self.places:
                place.wait()
        except BaseException:
            self.stop()
            raise

    def _start(self, name: str, span: str) -> NodeProcess:
        options = earning(self.ledger, self._folder / "owner.key") if self.ledger else []
        return NodeProcess(name, self._folder, self.model, span, self.addresses, ["--drain", "0", *options])

    @property
    def addresses(self) -> list[str]:
        return [place.process.address for place in self.places if place.serving]

    def node(self, peer: str) -> NodeProcess | None:
        """The process of a peer; None if a new one is about to take its place."""
        return next((place.process for place in self.places if place.serving and place.process.peer == peer), None)

    def heal(self, connection: Connection, model: Any, copies: Mapping[str, int], *, restart: bool = True) -> None:
        """Return when the client has met so many nodes of each span, as it would have minutes after a loss.

        The others come back while the next session runs; without `restart`, only those that do so by themselves. Raises
        DemoError if it takes three minutes.
        """
        deadline_s = time.monotonic() + READY_S
        while True:
            for place in self.places if restart else ():
                if place.ended:
                    place.stop()
                    place.fill()
            with contextlib.suppress(SwarmError):
                met = connection.run(connection.scout.candidates(model, Effort.LOOK_AGAIN))
                counts = Counter(f"{node.start}:{node.stop}" for node in met)
                if all(counts[span] >= count for span, count in copies.items()):
                    return
            if time.monotonic() > deadline_s:
                raise DemoError(f"the swarm has not come back within {READY_S:.0f} s; see {self._folder}")
            time.sleep(LOOK_S)

    def stop(self) -> None:
        for place in self.places:
            place.stop()


@contextlib.contextmanager
def swarm(model: Path, spans: Sequence[str], replicas: int, *, credits: bool = False) -> Iterator[Swarm]:
    """With `credits`, its nodes earn on a ledger of their own."""
    with tempfile.TemporaryDirectory(prefix="nectar-survival-") as name, contextlib.ExitStack() as stack:
        folder, ledger = Path(name), None
        if credits:
            process = LedgerProcess(found_ledger(folder / "ledger", model))
            stack.callback(process.kill)
            ledger = process.wait().url
        nodes = Swarm(model, folder, spans, replicas, ledger)
        stack.callback(nodes.stop)
        yield nodes
