"""What a node has loaded: its span in stages, one for each device."""

from dataclasses import dataclass

import torch

from nectar_node.runner import Runner
from nectar_node.span import SpanModel
from nectar_node.speed import Speed, SpeedOfAll


@dataclass(frozen=True)
class Stage:
    """Blocks on one device, tried and measured."""

    span: SpanModel
    runner: Runner
    speed: Speed


@dataclass(frozen=True)
class Loaded:
    """Stages that follow each other: the span that a node serves."""

    stages: tuple[Stage, ...]

    @property
    def start(self) -> int:
        return self.stages[0].span.start

    @property
    def stop(self) -> int:
        return self.stages[-1].span.stop

    @property
    def blocks(self) -> tuple[int, int]:
        return self.start, self.stop

    @property
    def width(self) -> int:
        return self.stages[0].span.width

    @property
    def dtype(self) -> torch.dtype:
        return self.stages[0].span.dtype

    @property
    def speed(self) -> Speed | SpeedOfAll:
        if len(self.stages) == 1:
            return self.stages[0].speed
        return SpeedOfAll(tuple(stage.speed for stage in self.stages))
