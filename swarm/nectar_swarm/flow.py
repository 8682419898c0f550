"""What flows into a model's blocks, seen in one forward on the meta device, which has shapes and no memory.

A block can run on another machine if its output is made of its own weights and of the hidden states that the block
before it handed over, and of nothing else. Autograd is the witness: every weight wants a gradient, hidden states come
into each block as a leaf of their own, and where the graph of an output ends, there it came from.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from nectar_swarm.cachename import CACHE
from nectar_swarm.errors import UnsupportedModelError

TOKENS = 2


@dataclass(frozen=True)
class Flow:
    """`width`: the size of what one block hands to the next."""

    returns_tuple: bool
    width: int


def watch(base: Any, blocks: nn.ModuleList) -> Flow:
    """Run two tokens through a base model that is on the meta device. Raises UnsupportedModelError for blocks that
    need more than they are handed, and whatever a model raises that does not run as a plain decoder."""
    witness = _Witness(base, blocks)
    token_ids = torch.zeros(1, TOKENS, dtype=torch.long, device="meta")
    cache = DynamicCache(config=base.config)
    base.warn_if_padding_and_no_attention_mask = lambda *args: None  # it would look into the prompt
    with torch.enable_grad():
        out = base.requires_grad_(True)(witness.sees(token_ids), use_cache=True, **{CACHE: cache})
    return witness.verdict(out[0], cache)


class _Witness:
    """Looks at every block of a model before and after it runs."""

    def __init__(self, base: Any, blocks: nn.ModuleList) -> None:
        self._kind, self._blocks = base.config.model_type, blocks
        self._names = {id(weight): name for name, weight in base.named_parameters()}  # of leaves
        self._own = [{id(weight) for weight in block.parameters()} for block in blocks]
        self._leaves: list[torch.Tensor] = []  # what comes into each block
        self._outputs: list[torch.Tensor] = []
        self._kept: list[torch.Tensor] = []  # so that no other takes its place in memory
        self._extras: dict[int, int] = {}  # what else blocks returned, and which; numbers without gradients among it
        self._returns_tuple = False
        self._refuse_shared()
        self._refuse_readers(blocks)
        for number, block in enumerate(blocks):
            block.register_forward_pre_hook(self._before(number), with_kwargs=True)
            block.register_forward_hook(self._after(number))

    def sees(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Keep an eye on the prompt, which blocks have no business with."""
        self._prompt = token_ids.untyped_storage()._cdata
        return token_ids

    def verdict(self, out: Any, cache: DynamicCache) -> Flow:
        """After the forward. `out` is what came out of the whole model."""
        if not self._outputs:
            raise self._refusal("does not run through its blocks")
        if len(self._outputs) < len(self._own):
            raise self._refusal(f"runs through {len(self._outputs)} of its {len(self._own)} blocks only")
        if not any(getattr(layer, "is_initialized", False) for layer in cache.layers):
            raise self._refusal("keeps no keys and values in the cache that it is given")
        self._refuse_keepers()
        inner = {id(leaf) for leaf in self._leaves[:-1]}.union(*self._own[:-1])
        if foreign := [self._name(leaf) for leaf in _origins(out) if id(leaf) in inner]:
            raise self._refusal(f"uses {foreign[0]} after its last block, which hands on more than its hidden states")
        return Flow(self._returns_tuple, self._leaves[0].shape[-1])

    def _refuse_keepers(self) -> None:
        """State in a block itself would be that of all sessions at once."""
        for number, block in enumerate(self._blocks):
            for part in block.modules():
                kept = [name for name, value in vars(part).items() if getattr(value, "grad_fn", None) is not None]
                if kept:
                    raise self._refusal(f"keeps its past in its block {number}, as {kept[0]}, not in the cache")

    def _refuse_readers(self, blocks: nn.ModuleList) -> None:
        looks = ("is_causal", "is_decoder")
        if any(getattr(part, look, None) is False for part in blocks.modules() for look in looks):
            raise self._refusal("attends to what comes later too: it is an encoder")

    def _refuse_shared(self) -> None:
        owners: dict[int, int] = {}
        for number, weights in enumerate(self._own):
            for weight in sorted(weights, key=self._names.__getitem__):
                if (other := owners.setdefault(weight, number)) != number:
                    raise self._refusal(f"shares {self._names[weight]} between its blocks {other} and {number}")

    def _before(self, number: int) -> Any:
        def look(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if number != len(self._leaves):
                raise self._refusal(f"runs its block {number} out of turn, or more than once")
            hidden = args[0] if args else kwargs.get("hidden_states")
            if not isinstance(hidden, torch.Tensor) or hidden.ndim != 3:
                raise self._refusal(f"does not give its block {number} hidden states [batch, tokens, width]")
            if number and hidden is not self._outputs[-1]:
                raise self._refusal(f"changes the hidden states between its blocks {number - 1} and {number}")
            for name, tensor in _tensors({**dict(enumerate(args[1:], 1)), **kwargs}):
                if tensor is not hidden:
                    self._refuse_foreign(number, name, tensor)
            leaf = torch.zeros_like(hidden).requires_grad_()
            self._names[id(leaf)] = f"what comes into block {number}"
            self._leaves.append(leaf)
            entering = leaf.clone()  # a block may change it in place
            return ((entering, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": entering})

        return look

    def _after(self, number: int) -> Any:
        def look(block: nn.Module, args: Any, out: object) -> None:
            self._returns_tuple = isinstance(out, tuple)
            hidden = out[0] if isinstance(out, tuple) else out
            if not isinstance(hidden, torch.Tensor):
                raise self._refusal(f"has blocks that return {type(out).__name__}, not hidden states")
            if hidden.shape != self._leaves[-1].shape:
                raise self._refusal(f"has blocks of different widths: see block {number}")
            for _, extra in _tensors(out[1:] if isinstance(out, tuple) else ()):
                self._kept.append(extra)
                self._extras[extra.untyped_storage()._cdata] = number
            known = self._own[number] | {id(self._leaves[-1])}
            if foreign := [self._name(leaf) for leaf in _origins(hidden) if id(leaf) not in known]:
                raise self._refusal(f"makes the output of its block {number} of {min(foreign)} too")
            self._outputs.append(hidden)

        return look

    def _refuse_foreign(self, number: int, name: str, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()._cdata
        if storage in self._extras:
            block = self._extras[storage]
            raise self._refusal(f"gives its block {number} more than the hidden states of block {block}: {name}")
        if storage == self._prompt:
            raise self._refusal(f"gives its block {number} the token IDs themselves, as {name}")
        if tensor.requires_grad:
            made_of = min(self._name(leaf) for leaf in _origins(tensor))
            raise self._refusal(f"gives its block {number} {name} beside the hidden states, made of {made_of}")

    def _name(self, leaf: torch.Tensor) -> str:
        return self._names.get(id(leaf), "something else")

    def _refusal(self, reason: str) -> UnsupportedModelError:
        return UnsupportedModelError(f"{self._kind} {reason}; such blocks cannot run on different machines")


def _tensors(values: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors in arguments, however nested, with their names."""
    if isinstance(values, torch.Tensor):
        yield name, values
    elif isinstance(values, dict):
        for key, value in values.items():
            yield from _tensors(value, name or (key if isinstance(key, str) else f"argument {key}"))
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from _tensors(value, name)


def _origins(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The leaves that a tensor was made of."""
    leaves, seen = [], set()
    waiting: list[Any] = [tensor.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        waiting += [before for before, _ in node.next_functions]
    return leaves + ([tensor] if tensor.grad_fn is None and tensor.requires_grad else [])
