"""Several devices of one machine as one node: the span's blocks side by side, a compute thread for each device.

A work goes through its blocks' engines one after the other; while one computes a session's step, the others compute
those of others. Between them hidden states pass through the loop and the host's memory.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from nectar_swarm.history import InMemory, Stored

from nectar_node.engine import Deliver, Engine
from nectar_node.runner import KVStore
from nectar_node.scheduler import Work
from nectar_node.stage import Loaded, Stage


@dataclass(eq=False)
class PipelineKV:
    """A session's KV in each stage that it runs through, by the stage's number, in order. `ended`: nobody waits for
    what still runs on it.
    """

    start: int
    stop: int
    parts: dict[int, Any]
    ended: bool = False


class Pipeline:
    """An engine for each stage, to be used like a single one, and like its runner's store of KV.

    `stages` follow each other. Everything here belongs to the loop.
    """

    def __init__(self, stages: Sequence[Stage], deliver: Deliver) -> None:
        self._stages, self._deliver = stages, deliver
        self._engines = [
            Engine(stage.runner, stage.speed, stage.span.blocks, partial(self._pass_on, number))
            for number, stage in enumerate(stages)
        ]
        self._kvs: dict[Hashable, PipelineKV] = {}  # of each flow's last work

    # KV

    @property
    def kv_total(self) -> int:
        return min(stage.runner.kv_total for stage in self._stages)

    @property
    def kv_free(self) -> int:
        return min(stage.runner.kv_free for stage in self._stages)

    def reserve(self, start: int, stop: int, length: int, pads: Sequence[int]) -> PipelineKV | None:
        """In every stage that has some of the blocks, or in none."""
        kv = PipelineKV(start, stop, {})
        for number, stage in enumerate(self._stages):
            first, last = max(start, stage.span.start), min(stop, stage.span.stop)
            if first >= last:
                continue
            part = stage.runner.reserve(first, last, length, pads)
            if part is None:
                self.release(kv)
                return None
            kv.parts[number] = part
        return kv

    def release(self, kv: PipelineKV) -> None:
        for number, part in kv.parts.items():
            self._stages[number].runner.release(part)

    # Works

    def submit(self, work: Work) -> None:
        self._kvs[work.flow] = work.kv
        self._enter(next(iter(work.kv.parts)), work, work.stored)

    def _enter(self, number: int, work: Work, stored: Stored) -> None:
        part = work.kv.parts[number]
        own = replace(work, kv=part, stored=stored, tag=work, done=0, loaded=None, outputs=[])
        self._engines[number].submit(own)

    def _pass_on(self, number: int, own: Work, result: torch.Tensor | Exception) -> None:
        """A stage is done with its part of a work, which it carries as its tag."""
        work: Work = own.tag
        behind = [later for later in work.kv.parts if later > number]
        if work.kv.ended:
            return
        if isinstance(result, Exception) or not behind:
            self._deliver(work, result)
        else:
            self._enter(behind[0], work, InMemory(result))

    def end(self, flow: Hashable, then: Callable[[], None]) -> None:
        """Drop a flow's works; `then` is called once no stage runs any of them: at once, or soon."""
        if (kv := self._kvs.pop(flow, None)) is not None:
            kv.ended = True  # what is on its way from one stage to the next goes no further
        running = len(self._engines)

        def one_less() -> None:
            nonlocal running
            running -= 1
            if not running:
                then()

        for engine in self._engines:
            engine.end(flow, one_less)

    # How it is

    @property
    def queued(self) -> int:
        """Rows that wait."""
        return sum(engine.queued for engine in self._engines)

    @property
    def wait_us(self) -> int:
        """How long a token has lately waited, in all stages together."""
        return sum(engine.wait_us for engine in self._engines)

    @property
    def free_wait_s(self) -> float:
        """How long all that nobody pays for has to wait and compute, where that is most."""
        return max(engine.free_wait_s for engine in self._engines)

    def busy_ms(self) -> int:
        """The age of the oldest running iteration, for heartbeats."""
        return max(engine.busy_ms() for engine in self._engines)

    def stop(self) -> None:
        for engine in self._engines:
            engine.stop()

    async def join(self) -> None:
        """Until all threads have ended."""
        for engine in self._engines:
            await engine.join()


def start_computing(loaded: Loaded, deliver: Deliver) -> tuple[Engine | Pipeline, KVStore]:
    """What computes a node's works, and where their KV is reserved."""
    if len(loaded.stages) == 1:
        stage = loaded.stages[0]
        return Engine(stage.runner, stage.speed, stage.span.blocks, deliver), stage.runner
    pipeline = Pipeline(loaded.stages, deliver)
    return pipeline, pipeline
