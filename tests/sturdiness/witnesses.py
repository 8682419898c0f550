"""What must hold while a node is attacked: its memory is bounded, and an honest client's hidden states are right."""

import threading
from typing import Any

import psutil
import torch
from nectar.session import Session
from nectar_demo.processes import NodeProcess

from tests.sturdiness.peers import HANGS_S, noise

GROWTH_MIB = 64  # by which the node and its p2pd may grow during an attack, unless its test says more


class Honest(threading.Thread):
    """One session that steps again and again while it is awake, and compares each answer with the whole model's."""

    def __init__(self, session: Session, local: Any) -> None:
        super().__init__(name="honest", daemon=True)
        self.rounds = 0
        self.error: BaseException | None = None
        self._session, self._hidden = session, noise(20)
        self._want = run_blocks(local, self._hidden)
        self._awake, self._stopped, self._progress = threading.Event(), threading.Event(), threading.Condition()

    def run(self) -> None:
        try:
            self._step(0, 16)
            while self._awake.wait() and not self._stopped.wait(0.02):
                for position in range(16, 20):  # the same four tokens, rolled back each time
                    self._step(position, position + 1)
                with self._progress:
                    self.rounds += 1
                    self._progress.notify_all()
        except BaseException as error:
            with self._progress:
                self.error = error
                self._progress.notify_all()

    def _step(self, start: int, stop: int) -> None:
        answer = self._session.step(self._hidden[:, start:stop], start)
        noise = 1e-3 * self._want.abs().max().item()  # of sums in another order
        torch.testing.assert_close(answer, self._want[:, start:stop], rtol=0, atol=noise)

    def wait_for(self, rounds: int) -> None:
        """Until so many more have come out right."""
        with self._progress:
            until = self.rounds + rounds
            self._progress.wait_for(lambda: self.rounds >= until or self.error, HANGS_S)
            assert self.error is None, self.error
            assert self.rounds >= until, "the honest client waits"

    def wake(self) -> None:
        self._awake.set()

    def rest(self) -> None:
        """Between tests: those of other folders have the machine to themselves."""
        self._awake.clear()

    def stop(self) -> None:
        self._stopped.set()
        self.wake()
        self.join(HANGS_S)


def run_blocks(local: Any, hidden: torch.Tensor) -> torch.Tensor:
    """What all blocks of the whole model make of hidden states."""
    outputs: list[torch.Tensor] = []
    hook = local.model.layers[-1].register_forward_hook(lambda *call: outputs.append(call[2]))
    with torch.inference_mode():
        local.model(inputs_embeds=hidden, use_cache=False)
    hook.remove()
    [output] = outputs
    return output[0] if isinstance(output, tuple) else output


class Memory(threading.Thread):
    """The most that a node and its p2pd have had in memory since it began. A test may set `limit_mib`."""

    def __init__(self, node: NodeProcess) -> None:
        super().__init__(name="memory", daemon=True)
        self._processes = [psutil.Process(pid) for pid in (node.process.pid, node.p2pd_pid)]
        self._stopped = threading.Event()
        self.before_mib = self.peak_mib = self.now_mib
        self.limit_mib = GROWTH_MIB

    @property
    def now_mib(self) -> int:
        return sum(process.memory_info().rss for process in self._processes) >> 20

    def run(self) -> None:
        while not self._stopped.wait(0.02):
            self.peak_mib = max(self.peak_mib, self.now_mib)

    def check(self) -> None:
        self._stopped.set()
        self.join()
        assert self.peak_mib - self.before_mib <= self.limit_mib
