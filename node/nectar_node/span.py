"""A span of blocks of any decoder in Transformers: no copied modelling code, and none for a single family.

The family's own base model is subclassed: it is built whole on the meta device, so that Transformers makes every
per-layer decision with the true layer number; then only the blocks [start, stop) stay, everything else that has
parameters becomes a stub, and only those blocks' tensors are loaded, lazily. A gate on each block injects the given
hidden states at the first and keeps the raw output of the last.
"""

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from nectar_protocol.announcement import Profile
from nectar_swarm.anatomy import Anatomy, find_stack
from nectar_swarm.cachename import CACHE
from nectar_swarm.checkpoint import Checkpoint
from nectar_swarm.plain import read_modules_plainly, read_plainly
from nectar_swarm.progress import byte_bar
from nectar_swarm.quiet import quiet_transformers
from nectar_swarm.rope import GROWING, LONG, rope_types, short_length
from torch import nn
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DummyLayer,
    DynamicLayer,
    LinearAttentionCacheLayerMixin,
)
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from nectar_node.errors import SpanError
from nectar_node.linear import LinearLayers
from nectar_node.profiles import PROFILES
from nectar_node.quantised import (
    QUANTISED,
    audit,
    load_blocks_on_meta,
    loading_options,
    quantised_layers,
    scales_of,
)

BLOCK_NUMBERS = ("layer_idx", "layer_id")  # what a block calls its place in the cache


class _Zero(nn.Module):
    """Stands in for an embedding: the gate replaces whatever it leads to."""

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return torch.zeros(())


class _Pass(nn.Module):
    """Stands in for norms and projections before and after the blocks: returns what it is given."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return next((value for value in (*args, *kwargs.values()) if value is not None), None)


def _strip(owner: nn.Module, keep: str) -> None:
    """Replace every child that has parameters by a stub, but `keep`."""
    for name, child in list(owner.named_children()):
        if name != keep and next(child.parameters(), None) is not None:
            setattr(owner, name, _Zero() if isinstance(child, nn.Embedding) else _Pass())


def _is_per_block(value: object, blocks: int) -> TypeGuard[list[Any]]:
    return isinstance(value, list) and len(value) == blocks


def _is_property(member: object) -> bool:
    return isinstance(member, property)


def _slice_config(config: PretrainedConfig, blocks: int, start: int, stop: int) -> None:
    """Cut every per-block list of the configuration (layer types and the like), and its layer count, to the span."""
    for part in {id(c): c for c in (config, config.get_text_config(decoder=True))}.values():
        kind = type(part)
        values = {name: getattr(part, name, None) for name, _ in inspect.getmembers(kind, _is_property)}
        lists = {name: value[start:stop] for name, value in values.items() if _is_per_block(value, blocks)}
        if lists:  # some families compute them from the blocks' numbers, which are true ones for the last time here
            part.__class__ = type(kind.__name__, (kind,), lists)
        for name, value in list(vars(part).items()):
            if _is_per_block(value, blocks) and name != "architectures":
                setattr(part, name, value[start:stop])
        part.num_hidden_layers = stop - start


def _span_class(base: Any, start: int, stop: int) -> Any:
    """A subclass of a family's base model that keeps the blocks [start, stop) only."""

    class Span(base):
        def __init__(self, config: PretrainedConfig, *args: Any, **kwargs: Any) -> None:
            super().__init__(config, *args, **kwargs)
            owner, stack = find_stack(self)
            blocks = getattr(owner, stack)
            setattr(owner, stack, nn.ModuleList(list(blocks)[start:stop]))
            _strip(owner, stack)
            if owner is not self:  # some families nest the stack: model.decoder.layers
                _strip(self, next(k for k, m in self.named_children() if any(x is owner for x in m.modules())))
            for module in getattr(owner, stack).modules():
                for name in BLOCK_NUMBERS:
                    if isinstance(number := getattr(module, name, None), int):
                        setattr(module, name, number - start)
            _slice_config(self.config, len(blocks), start, stop)
            self.all_tied_weights_keys: dict[str, str] = {}

    # Else Transformers takes it for custom code and skips the family's weight conversions.
    Span.__name__, Span.__qualname__, Span.__module__ = base.__name__, base.__qualname__, base.__module__
    return Span


@dataclass
class _Call:
    """One forward through the span: what goes in, through which blocks, and what came out."""

    hidden: torch.Tensor
    start: int
    stop: int
    reach: int | None = None
    out: torch.Tensor | None = None


class _Rotary:
    """Takes the place of the `forward` of a rotary embedding with two sets of frequencies.

    Transformers chooses by the last position of a call; here it sees the last that the session can reach, so that no
    chunk of a text is turned otherwise than the rest.
    """

    def __init__(self, span: "SpanModel", forward: Callable[..., Any]) -> None:
        self.span, self.forward = span, forward

    def __call__(self, x: torch.Tensor, position_ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        call = self.span.call
        if call is None or call.reach is None:
            return self.forward(x, position_ids, *args, **kwargs)
        last = position_ids.new_full((position_ids.shape[0], 1), call.reach - 1)
        turns = self.forward(x, torch.cat([position_ids, last], 1), *args, **kwargs)
        return tuple(turn[:, :-1] for turn in turns)


class _Gate:
    """Takes the place of one block's `forward`."""

    def __init__(self, span: "SpanModel", index: int, forward: Callable[..., Any]) -> None:
        self.span, self.index, self.forward = span, index, forward

    def __call__(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        call = self.span.call
        if call is None:
            raise SpanError("a block was called outside its span")
        if self.index == call.start:
            hidden_states = call.hidden
        if not call.start <= self.index < call.stop:
            # Families that return tuples index [0]: a 1-tuple would break some of them.
            return (hidden_states, None) if self.span.returns_tuple else hidden_states
        out = self.forward(hidden_states, *args, **kwargs)
        if self.index == call.stop - 1:
            call.out = out[0] if isinstance(out, tuple) else out
        return out


class SpanModel:
    """Blocks [start, stop) of a checkpoint on one device. Not thread-safe: one compute thread owns it.

    `dtype` is of all numbers but those of layers that are `quantised` in 8 or 4 bits. Raises SpanError when the
    checkpoint does not hold what the blocks need, or quantising left something out.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        anatomy: Anatomy,
        start: int,
        stop: int,
        dtype: torch.dtype,
        device: torch.device,
        quantised: Profile | None = None,
    ) -> None:
        self.start, self.stop, self.dtype, self.device = start, stop, dtype, device
        self.profile = quantised or PROFILES[dtype]
        self.width, self.returns_tuple = anatomy.width, anatomy.returns_tuple
        self._config = anatomy.config
        options = {} if quantised is None else loading_options(quantised, dtype, device)
        self.model = _load(checkpoint, anatomy, start, stop, dtype, device, options)
        owner, stack = find_stack(self.model)
        if quantised is not None:
            audit(getattr(owner, stack), load_blocks_on_meta(anatomy.config)[start:stop], quantised)
        for index, block in enumerate(getattr(owner, stack)):
            block.forward = _Gate(self, index, block.forward)
        self.short_length = short_length(anatomy.config)
        self.frequencies_grow = GROWING in rope_types(anatomy.config)
        for module in self.model.modules() if LONG in rope_types(anatomy.config) else ():
            if hasattr(module, "rope_type"):
                module.forward = _Rotary(self, module.forward)
        read_plainly(self.model.config)
        if quantised is None:  # else weights are replaced while they run
            read_modules_plainly(self.model)
        self.call: _Call | None = None
        self._linear = LinearLayers(self.model)
        self._attention = self._own_attention = self.model.config._attn_implementation
        self._takes_positions = "position_ids" in inspect.signature(self.model.forward).parameters
        self.recurrent = True  # until it is known, nothing may be recorded
        self.recurrent = self._has_recurrent_state()

    @property
    def blocks(self) -> int:
        return self.stop - self.start

    @property
    def weight_bytes(self) -> int:
        """With a quantised layer's scales; its state_dict would unpack it."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        if self.profile in QUANTISED:
            tensors += [scales_of(layer) for _, layer in quantised_layers(self.model)]
        return sum(tensor.nbytes for tensor in tensors)

    def new_cache(self, start: int, stop: int) -> Cache:
        """KV of one session through the model's blocks [start, stop), which lie in this span.

        Blocks outside hold nothing, so that lengths and masks come from one that runs. Recording lets windows of
        attention and convolutions be rolled back. Recurrent state cannot be, and Transformers computes some of it
        otherwise while it records.
        """
        cache = DynamicCache(config=self._config)  # the whole model's: some families compute what kind each block is
        cache.layers = cache.layers[self.start : self.stop]
        for index in range(len(cache.layers)):
            if not start <= self.start + index < stop:
                cache.layers[index] = DummyLayer()
        if not any(isinstance(layer, CacheLayerMixin) for layer in cache.layers):
            cache.layers.append(DynamicLayer())  # where all state is recurrent, nothing else tells a length
        if not self.recurrent:
            cache.activate_past_recording()
        return cache

    def _has_recurrent_state(self) -> bool:
        """Seen in the cache after one token."""
        cache = self.new_cache(self.start, self.stop)
        if not any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in cache.layers):
            return False
        token = torch.zeros(1, 1, self.width)
        self.forward(token, cache, start=self.start, stop=self.stop, position_ids=self.positions(0, 1))
        return any(any(getattr(layer, "is_recurrent_states_initialized", {}).values()) for layer in cache.layers)

    def positions(self, start: int, stop: int) -> torch.Tensor:
        """[1, tokens]"""
        return torch.arange(start, stop, device=self.device)[None]

    def _attend_by(self, name: str) -> None:
        """Blocks look the name up at every call; to set it takes longer than many a kernel."""
        if name != self._attention:
            self.model.config._attn_implementation = self._attention = name

    @torch.inference_mode()
    def forward(
        self,
        hidden: torch.Tensor,
        cache: Cache | None,
        *,
        start: int,
        stop: int,
        position_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        attention: str | None = None,
        reach: int | None = None,
        together: bool = False,
        **others: Any,
    ) -> torch.Tensor:
        """Hidden states [batch, tokens, width] through the model's blocks [start, stop), in the span's dtype.

        `attention` names a function of Transformers' attention interface in place of the family's own, and `others`
        reach it. `together`: the rows are several sessions', or a replay.
        """
        self._attend_by(attention or self._own_attention)
        arguments: dict[str, Any] = {CACHE: cache}
        if position_ids is not None and self._takes_positions:
            arguments["position_ids"] = position_ids
        self.call = call = _Call(
            hidden.to(self.device, self.dtype, non_blocking=True), start - self.start, stop - self.start, reach
        )
        self._linear.together = together
        try:
            self.model(
                inputs_embeds=call.hidden.clone(),  # some families scale it in place
                attention_mask=attention_mask,
                use_cache=cache is not None,
                **arguments,
                **others,
            )
        finally:
            self.call = None
        if call.out is None:
            raise SpanError(f"blocks [{start}, {stop}) did not run")
        return call.out


def _load(
    checkpoint: Checkpoint,
    anatomy: Anatomy,
    start: int,
    stop: int,
    dtype: torch.dtype,
    device: torch.device,
    options: Mapping[str, Any],
) -> Any:
    """The stripped model with the span's tensors, on its device. Raises SpanError or CheckpointError."""
    name = checkpoint.source.name
    keys = {key: new for key in checkpoint.weight_map if (new := anatomy.renumber(key, start, stop)) is not None}
    if not keys:
        raise SpanError(f"{name} holds no tensors of blocks [{start}, {stop})")
    total = sum(anatomy.block_parameters[start:stop]) * dtype.itemsize
    with byte_bar(f"loading blocks {start}:{stop}", total) as advance, quiet_transformers():
        state = {keys[key]: tensor for key, tensor in checkpoint.lazy(keys, advance).items()}
        try:
            model, info = _span_class(MODEL_MAPPING[type(anatomy.config)], start, stop).from_pretrained(
                None,
                config=copy.deepcopy(anatomy.config),
                state_dict=state,
                dtype=dtype,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                output_loading_info=True,
                **options,
            )
        except RuntimeError as error:  # the family's conversion of the weights failed: an expert is missing, say
            raise SpanError(f"blocks [{start}, {stop}) of {name} do not fit together: {error}") from error
    if missing := sorted(info["missing_keys"]):
        shown = ", ".join(_restore(key, anatomy, start, next(iter(keys))) for key in missing[:3])
        raise SpanError(f"{name} lacks {len(missing)} tensors of blocks [{start}, {stop}): {shown}")
    for kind in ("unexpected_keys", "mismatched_keys"):
        if info[kind]:
            raise SpanError(f"{name} does not fit its own configuration ({kind}: {sorted(info[kind])[:3]})")
    return model.requires_grad_(False).eval().to(device)


def _restore(key: str, anatomy: Anatomy, start: int, example: str) -> str:
    """A renumbered tensor's name as it would stand in the checkpoint, where `example` stands; for messages."""
    number, other = anatomy.block_of(key), anatomy.block_of(example)
    if number is None:
        return key
    prefix = example.partition(f"{anatomy.stack}.{other}.")[0]
    rest = key.partition(f"{anatomy.stack}.{number}.")[2]
    return f"{prefix}{anatomy.stack}.{number + start}.{rest}"
