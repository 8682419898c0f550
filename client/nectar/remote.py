"""What stands in a Transformers model where its blocks were: one remote chain, and a cache that is a position."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from nectar_swarm.cachename import CACHE, OLD_CACHE
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, CacheLayerMixin

from nectar.blocks import RemoteBlocks
from nectar.errors import RequestError
from nectar.session import Session

ATTENTION = "remote"


class RemoteLayer(CacheLayerMixin):
    """The client's side of the KV cache: a position counter. The tensors live on the nodes."""

    is_croppable, is_sliding = True, False

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length, self.is_initialized = length, True

    def lazy_initialization(self, *args: Any) -> None: ...

    def update(self, *args: Any, **kwargs: Any) -> Any:
        raise RequestError("the blocks of this model are remote; it has no keys and values here")

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1

    def crop(self, tokens: int) -> None:
        """Forget the last tokens; the nodes learn of it from the position of the next step."""
        self.length -= abs(tokens)

    def reset(self) -> None:
        self.length = 0


class RemoteCache(Cache):
    """A session as Transformers' cache, or several for parts of the model that follow each other.

    Beam reorders are composed here and leave with the next step. `longer` opens the sessions in which a text goes on
    that is given anew, because it has become too long for its rotary frequencies.
    """

    def __init__(self, *sessions: Session, longer: Callable[[], Sequence[Session]] | None = None) -> None:
        super().__init__(layers=[RemoteLayer(sessions[0].position)])
        self.sessions: Sequence[Session] = sessions
        self.longer = longer
        self.rows: torch.Tensor | None = None

    def begin_anew(self) -> None:
        """The next step brings the whole text."""
        self.layers[0].reset()
        self.rows = None
        if self.longer is not None:
            self.sessions, self.longer = self.longer(), None

    def check_room(self, tokens: int) -> None:
        """Raises RequestError for a text that grows past its rotary frequencies and is not given anew."""
        if self.longer is not None and self.layers[0].length + tokens > (most := self.sessions[0].max_length):
            raise RequestError(
                f"texts of more than {most} tokens have other rotary frequencies in this model, which cannot go on "
                "from what it has computed with those for shorter ones: generate fewer tokens, or begin with more"
            )

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        self.rows = beam_idx if self.rows is None else self.rows[beam_idx]

    batch_select_indices = reorder_cache

    def activate_past_recording(self) -> None: ...

    def take_reorder(self) -> tuple[int, ...]:
        rows, self.rows = self.rows, None
        if rows is None or torch.equal(rows, torch.arange(len(rows), device=rows.device)):
            return ()
        return tuple(rows.tolist())


class RemoteChain(nn.Module):
    """Stands as the only block of the client's model, for all `blocks` of it."""

    def __init__(self, returns_tuple: bool, block: nn.Module) -> None:
        super().__init__()
        self.returns_tuple = returns_tuple
        self.__dict__["_block"] = block  # one of those that run elsewhere, without weights; no submodule of the model
        self.blocks: RemoteBlocks | None = None
        self._local = threading.local()

    def __getattr__(self, name: str) -> Any:
        """Some families ask a block of what kind it is."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_block"], name)

    def remember(self, arguments: dict[str, Any]) -> None:
        """Keep the arguments of the present forward of the stack's owner, which hold the mask and the cache."""
        self._local.arguments = arguments

    @contextmanager
    def keeping_inputs(self) -> "Iterator[list[torch.Tensor]]":
        """Within it, this thread's forwards run block by block, and what goes into each is put into the list."""
        inputs: list[torch.Tensor] = []
        self._local.inputs = inputs
        try:
            yield inputs
        finally:
            self._local.inputs = None

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        arguments = self._local.arguments
        cache, tokens = arguments.get(CACHE, arguments.get(OLD_CACHE)), hidden_states.shape[1]
        pads = row_padding(arguments.get("attention_mask"), hidden_states.shape[0])
        if isinstance(cache, RemoteCache):
            layer = cache.layers[0]
            cache.check_room(tokens)
            check_positions(arguments.get("position_ids"), layer.length, tokens, pads)
            out = self._run(cache.sessions, hidden_states, layer.length, cache.take_reorder(), pads)
            layer.length += tokens
        else:
            if cache is not None:
                check_unused(cache)
            check_positions(arguments.get("position_ids"), 0, tokens, pads)
            with ExitStack() as stack:
                sessions = [stack.enter_context(part.session(tokens)) for part in self.parts(self._inputs is not None)]
                out = self._run(sessions, hidden_states, 0, (), pads)
        out = out.to(hidden_states.device)
        return (out, None) if self.returns_tuple else out

    def parts(self, each: bool) -> list[RemoteBlocks]:
        """Its blocks, together or each for itself. Raises RequestError for a model without a swarm."""
        if self.blocks is None:
            raise RequestError("this model is not connected to a swarm; load it with from_pretrained(…)")
        return list(self.blocks) if each else [self.blocks]

    @property
    def _inputs(self) -> list[torch.Tensor] | None:
        return getattr(self._local, "inputs", None)

    def _run(
        self,
        sessions: Sequence[Session],
        hidden: torch.Tensor,
        position: int,
        reorder: tuple[int, ...],
        pads: tuple[int, ...],
    ) -> torch.Tensor:
        """Through the parts, one after the other."""
        inputs = self._inputs
        if inputs is not None and len(sessions) < len(self.parts(True)):
            raise RequestError(
                "hidden states of each block do not come out of a session that runs all blocks at once: "
                "ask for them without `session`, or call model(text, output_hidden_states=True) afterwards"
            )
        for session in sessions:
            if inputs is not None:
                inputs.append(hidden)
            hidden = session.step(hidden, position, reorder, pads).to(hidden.device)
        return hidden


def mark_used(out: Any) -> None:
    """A cache of Transformers' own comes out of a forward as empty as it was made; the next forward must know."""
    for cache in out if isinstance(out, tuple) else (getattr(out, CACHE, None),):
        if isinstance(cache, Cache) and not isinstance(cache, RemoteCache):
            cache.__dict__["used"] = True


def check_unused(cache: Any) -> None:
    """Raises RequestError for a cache of Transformers' own that should hold something by now."""
    if cache.get_seq_length() or getattr(cache, "used", False):
        raise RequestError(
            f"the past of a remote model is kept in a session, not in {CACHE}: give every forward the whole "
            "text, with use_cache=False (which guidance_scale needs here), or let generate() keep it"
        )


def row_padding(mask: torch.Tensor | None, batch: int) -> tuple[int, ...]:
    """How many positions on the left of each row are padding. Raises RequestError for a mask of another kind."""
    if mask is None or mask.ndim != 2 or bool(mask.all()):
        return (0,) * batch
    kept = mask.bool()
    pads = (~kept).sum(1) if kept.shape[1] else torch.zeros(batch, dtype=torch.long)
    columns = torch.arange(kept.shape[1], device=mask.device)
    if not torch.equal(kept, columns >= pads[:, None]):
        raise RequestError("only padding on the left can be sent through a swarm: use tokenizer(padding_side='left')")
    return tuple(pads.tolist())


def check_positions(position_ids: torch.Tensor | None, position: int, tokens: int, pads: tuple[int, ...]) -> None:
    """Nodes count positions themselves. Raises RequestError for others than theirs."""
    if position_ids is None or position_ids.ndim != 2:
        return
    rows = position_ids.tolist()  # once, and no tensors from here: each operation on one may wait for other threads
    for row, pad in zip(rows * (len(pads) // len(rows)), pads, strict=True):
        own = range(position - pad, position - pad + tokens)
        padding = max(0, pad - position)
        if row[padding:] != list(own[padding:]):
            raise RequestError("position_ids of your own cannot be sent through a swarm; leave them out")


def _no_attention(*args: Any, **kwargs: Any) -> Any:
    raise RequestError("the blocks of this model are remote; they have no attention here")


def _no_mask(batch_size: int, q_length: int, kv_length: int, device: Any = "cpu", **kwargs: Any) -> torch.Tensor:
    """A mask's shape without its memory: some families want a tensor, not None."""
    return torch.zeros((), dtype=torch.bool, device=device).expand(batch_size, 1, q_length, kv_length)


AttentionInterface.register(ATTENTION, _no_attention)
AttentionMaskInterface.register(ATTENTION, _no_mask)
