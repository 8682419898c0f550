"""Blocks of one model onto the devices of one machine: how many fit, in which format, and a stage for each device."""

import logging
from itertools import accumulate, pairwise

import torch
from nectar_swarm.anatomy import Anatomy
from nectar_swarm.checkpoint import Checkpoint

from nectar_node.memory import free_bytes
from nectar_node.placement import blocks_that_fit, need_a_block, parse_span, share_blocks
from nectar_node.profiles import Format, choose_format
from nectar_node.quantised import QUANTISED
from nectar_node.selftest import self_test
from nectar_node.span import SpanModel
from nectar_node.stage import Loaded, Stage
from nectar_node.trial import choose_runner, measure

MEMORY_SHARE = 0.8  # of the free memory, for weights and KV

log = logging.getLogger(__name__)


class Loader:
    """`profile` is a name or `auto`, `blocks` START:STOP or None. Every stage has `kv_tokens` positions of KV.

    Raises ProfileError or PlacementError.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        anatomy: Anatomy,
        devices: tuple[torch.device, ...],
        *,
        profile: str,
        kv_tokens: int,
        blocks: str | None,
        max_blocks: int | None,
    ) -> None:
        self.checkpoint, self.anatomy, self.devices = checkpoint, anatomy, devices
        self._kv_tokens, self._max_blocks = kv_tokens, max_blocks
        start, stop = parse_span(blocks or ":", anatomy.blocks)
        wanted = min(stop - start, max_blocks or stop)

        def fitting(one: Format) -> int:
            return self._fitting(one, start, stop)

        self.format = choose_format(profile, anatomy, devices[0], fitting, wanted, named=blocks is not None)

    @property
    def blocks_that_fit(self) -> int:
        """Of the whole model, on all devices together. Raises PlacementError if not even one does."""
        sizes, kv_bytes = self.format.block_bytes, self._kv_bytes(self.format.dtype)
        need_a_block(sizes, kv_bytes, max(map(self._available, self.devices)))
        fitting = self._fitting(self.format, 0, self.anatomy.blocks)
        return min(fitting, self._max_blocks or fitting)

    def load(self, start: int, stop: int) -> Loaded:
        """Blocks [start, stop), tested and measured, side by side on the devices. Raises NodeError."""
        counts = share_blocks(stop - start, self._capacities(self.format, start, stop))
        bounds = pairwise(accumulate(counts, initial=start))
        stages = [
            self._load_stage(*bound, device)
            for bound, device in zip(bounds, self.devices, strict=True)
            if bound[0] < bound[1]
        ]
        return Loaded(tuple(stages))

    def _load_stage(self, start: int, stop: int, device: torch.device) -> Stage:
        if len(self.devices) > 1:
            log.info("loading blocks %d:%d onto %s", start, stop, device)
        profile = self.format.profile
        quantised = profile if profile in QUANTISED else None
        span = SpanModel(self.checkpoint, self.anatomy, start, stop, self.format.dtype, device, quantised)
        self_test(span)
        runner = choose_runner(span, self._kv_tokens)
        return Stage(span, runner, measure(span, runner))

    def _fitting(self, one: Format, start: int, stop: int) -> int:
        """How many of these blocks all devices together could hold."""
        return min(sum(self._capacities(one, start, stop)), stop - start)

    def _capacities(self, one: Format, start: int, stop: int) -> list[int]:
        """How many of these blocks each device could hold by itself."""
        sizes, kv_bytes = one.block_bytes[start:stop], self._kv_bytes(one.dtype)
        return [blocks_that_fit(sizes, kv_bytes, self._available(device)) for device in self.devices]

    def _available(self, device: torch.device) -> int:
        return int(free_bytes(device) * MEMORY_SHARE) // self.devices.count(device)

    def _kv_bytes(self, dtype: torch.dtype) -> int:
        """Of each block."""
        config = self.anatomy.config.get_text_config(decoder=True)
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return 2 * int(heads) * int(head_dim) * dtype.itemsize * self._kv_tokens
