"""A causal language model whose blocks run in a swarm. generate() and everything around it is Transformers' own."""

import functools
import inspect
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from nectar_protocol.identity import PeerID
from nectar_swarm.anatomy import Anatomy, examine, find_stack, load_config
from nectar_swarm.cachename import CACHE, OLD_CACHE
from nectar_swarm.checkpoint import Checkpoint
from nectar_swarm.errors import CheckpointError
from nectar_swarm.hub import HubAccess
from nectar_swarm.modelfiles import GENERATION_CONFIG
from nectar_swarm.peeraddress import PeerAddress
from nectar_swarm.plain import read_plainly
from nectar_swarm.quiet import quiet_transformers
from nectar_swarm.rope import short_length
from nectar_swarm.source import open_source
from torch import nn
from transformers import GenerationConfig, PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from nectar.blocks import Credits, RemoteBlocks, RemoteModel, peer_set, share
from nectar.connection import Connection, shared_connection
from nectar.errors import RequestError
from nectar.head import share_head
from nectar.remote import ATTENTION, RemoteCache, RemoteChain, mark_used
from nectar.session import PATIENCE_S, Session
from nectar.states import with_hidden_states

if TYPE_CHECKING:
    from nectar.purse import Purse
    from nectar.wallet import Wallet

DRAFT_ROOM = 64  # positions beyond the last token that drafts of speculative decoding may reach


class AutoDistributedModelForCausalLM:
    """Loads any decoder's embeddings, final norm and head; its blocks run on the nodes of a swarm."""

    def __init__(self) -> None:
        raise RequestError("use AutoDistributedModelForCausalLM.from_pretrained(name, initial_peers=[…])")

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        initial_peers: Sequence[str | PeerAddress] = (),
        connection: Connection | None = None,
        revision: str = "main",
        offline: bool = False,
        max_disk_bytes: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        allowed_peers: Sequence[PeerID] | None = None,
        key_file: str | Path | None = None,
        patience_s: float = PATIENCE_S,
        trusted_peers: Collection[PeerID] | None = None,
        ledger: str | None = None,
        wallet: "Wallet | str | Path | None" = None,
        cover: bool = True,
    ) -> Any:
        """A Transformers causal LM of the model's own family, connected to a swarm.

        `name` is a folder or a hub repository, of which what was fetched before serves where `offline` keeps the hub
        from being asked. Weights that this or another process fetched and nobody uses are removed, what was used
        longest ago first, to keep them below `max_disk_bytes`.

        `initial_peers` are the addresses that nodes print, or give an open `connection`. `allowed_peers` are the only
        ones to talk to; `key_file` gives this client an identity that lasts, for swarms that have such a list
        themselves. `patience_s` is how long a session waits when nobody serves some of its blocks. Only
        `trusted_peers` run the first and the last block, from whose hidden states text is recovered most easily.

        `ledger` is the address of the ledger that turns work into credits: nodes that take its holds are shown one, and
        `wallet`, a key file or a Wallet, pays for sessions with a weight. With `cover`, one session in twenty asks a
        node afterwards what it received, where auditors do the same.
        Raises CheckpointError, DiskError, UnsupportedModelError, UnreachableError or RequestError.
        """
        trusted = peer_set(trusted_peers)
        source = open_source(name, revision, HubAccess(offline=offline, max_disk_bytes=max_disk_bytes))
        anatomy = examine(load_config(source))
        model = _load(Checkpoint(source), anatomy, dtype).to(device)
        share_head(model)
        model.__dict__["source"] = source  # which holds the model's files while the model lives
        if connection is not None and (initial_peers or allowed_peers is not None or key_file is not None):
            raise RequestError("give either a connection, or what to make one from")
        if connection is None:
            allowed = None if allowed_peers is None else frozenset(allowed_peers)
            connection = shared_connection(initial_peers, allowed=allowed, key_file=key_file)
        id, purse = source.manifest.model_id, open_purse(connection, ledger, wallet, cover)
        if purse is not None:
            connection.prefetch(purse.learn(id))
        model.attach(RemoteModel(connection, id, anatomy.blocks, anatomy.width, dtype, patience_s, trusted, purse))
        return model


def _distributed_class(base: Any) -> Any:
    """A subclass of a family's causal LM with its block stack replaced by one RemoteChain."""

    class Distributed(base):
        def __init__(self, config: PretrainedConfig, returns_tuple: bool, *args: Any, **kwargs: Any) -> None:
            super().__init__(config, *args, **kwargs)
            owner, stack = find_stack(self.base_model)
            chain = RemoteChain(returns_tuple, getattr(owner, stack)[0])
            self.__dict__.update(chain=chain, decoder_stack=owner)  # not registered a second time as submodules
            setattr(owner, stack, nn.ModuleList([chain]))
            for part in (config, config.get_text_config(decoder=True)):
                part._attn_implementation = ATTENTION  # after __init__: some families look it up in there
            names = list(inspect.signature(owner.forward).parameters)

            def remember(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                chain.remember({**dict(zip(names, args, strict=False)), **kwargs})

            owner.register_forward_pre_hook(remember, with_kwargs=True)

        def attach(self, remote: RemoteModel) -> None:
            """Run the blocks in this swarm."""
            self.chain.blocks = RemoteBlocks(remote)
            self.__dict__["_anchor"] = next(self.parameters())

        @property
        def blocks(self) -> RemoteBlocks:
            """The blocks in their swarm, for hidden states of your own: `model.blocks[2:5](hidden)`."""
            (blocks,) = self.chain.parts(each=False)
            return blocks

        @property
        def device(self) -> torch.device:
            """Transformers looks through all modules for a first weight, twice for every token."""
            anchor = self.__dict__.get("_anchor")
            return super().device if anchor is None else anchor.device

        @property
        def connection(self) -> Connection:
            return self.blocks.remote.connection

        def session(self, max_length: int = 2048, **options: Any) -> Session:
            """A session that several calls of generate() share; takes the options of `RemoteBlocks.session`."""
            return self.blocks.session(max_length, **options)

        @functools.wraps(base.forward)
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            out = with_hidden_states(self, super().forward, args, kwargs)
            mark_used(out)
            return out

        @torch.no_grad()
        def generate(
            self,
            inputs: Any = None,
            *args: Any,
            session: Session | None = None,
            weight: int = 0,
            budget: Credits | None = None,
            **kwargs: Any,
        ) -> Any:
            """Transformers' generate(). With `session`, what it holds already is not computed again: give the whole
            text so far, old and new; what differs from the session's is rolled back. Without one, `weight` and
            `budget` are those of `RemoteBlocks.session`."""
            if session is not None and (weight or budget is not None):
                raise RequestError("a session has its weight and its budget already: give them to model.session(…)")
            if not kwargs.setdefault("use_cache", True) or CACHE in kwargs or OLD_CACHE in kwargs:
                if weight or budget is not None:
                    raise RequestError("weight and budget go with a session, which generate() has with its cache alone")
                return super().generate(inputs, *args, **kwargs)
            ids = inputs if inputs is not None else kwargs.get("input_ids")
            short = short_length(self.config)
            if session is not None:
                if short is not None and ids is not None and session.max_length > short >= ids.shape[1]:
                    raise RequestError(
                        f"texts of more than {short} tokens have other rotary frequencies in this model, so a session "
                        f"is for shorter or for longer ones: open it with max_length={short}, or leave it out"
                    )
                if _drafts(self.generation_config, args, kwargs):
                    session.token_ids = None  # Transformers gives the whole text then, whatever the cache holds
                return _generate_in(session, super().generate, ids, inputs, args, kwargs)
            room = _room(self.generation_config, ids, args, kwargs)
            each = _keeps_states(self.generation_config, args, kwargs)
            paying = _paying(weight, budget, len(self.chain.parts(each)))
            with ExitStack() as stack:

                def sessions(length: int) -> list[Session]:
                    stack.close()  # those before
                    return [stack.enter_context(part.session(length, **paying)) for part in self.chain.parts(each)]

                if short is not None and _prompt_length(ids, kwargs) <= short < room:
                    cache = RemoteCache(*sessions(short), longer=lambda: sessions(room))
                else:
                    cache = RemoteCache(*sessions(room))
                return super().generate(inputs, *args, **{CACHE: cache}, **kwargs)

        @functools.wraps(base.prepare_inputs_for_generation)
        def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            prepared: dict[str, Any] = super().prepare_inputs_for_generation(*args, **kwargs)
            cache = kwargs.get(CACHE)
            if isinstance(cache, RemoteCache) and prepared.get(CACHE) is None:
                _refuse_padding(prepared.get("attention_mask"))
                cache.begin_anew()
                prepared[CACHE] = cache
            return prepared

    Distributed.__name__, Distributed.__qualname__ = base.__name__, base.__qualname__
    Distributed.__module__ = base.__module__  # else Transformers skips the family's weight conversions
    return Distributed


def _generate_in(session: Session, generate: Any, ids: Any, inputs: Any, args: Any, kwargs: Any) -> Any:
    """generate() on what a session holds, kept up to where the new text differs from it."""
    if ids is None:
        raise RequestError("a session needs input_ids: the whole text so far")
    session.position = _common_length(session.token_ids, ids, session.position)
    session.token_ids = ids[:, : session.position]  # all that it holds for certain if this fails
    cache = RemoteCache(session)
    out = generate(inputs, *args, **{CACHE: cache}, **kwargs)
    sequences = out if isinstance(out, torch.Tensor) else out.sequences
    if len(session.pads) != ids.shape[0]:  # rows were put in for beams or samples: beyond the prompt they differ
        sequences = ids
    session.token_ids = sequences[:, : cache.layers[0].length]
    return out


def _common_length(held: torch.Tensor | None, ids: torch.Tensor, position: int) -> int:
    """How many positions of a session `ids` goes on from; at least one token is left to compute."""
    if held is None or held.shape[0] != ids.shape[0]:
        return 0
    length = min(held.shape[1], ids.shape[1] - 1, position)
    same = (held[:, :length] == ids[:, :length].to(held.device)).all(0)
    return int(same.long().cumprod(0).sum())


def _paying(weight: int, budget: Credits | None, parts: int) -> dict[str, Any]:
    """The options of each of so many sessions that share a budget."""
    if not weight and budget is None:
        return {}
    return {"weight": weight} if budget is None else {"weight": weight, "budget": share(budget, parts)}


def open_purse(
    connection: Connection, ledger: str | None, wallet: "Wallet | str | Path | None", cover: bool
) -> "Purse | None":
    """What sessions are paid from, where there is a ledger. Raises RequestError, LedgerClientError, KeyFileError."""
    if ledger is None:
        if wallet is not None:
            raise RequestError("a wallet is of no use without its ledger: give ledger=URL")
        return None
    from nectar.purse import Purse
    from nectar.wallet import Wallet

    owner = wallet if wallet is None or isinstance(wallet, Wallet) else Wallet.open(ledger, wallet)
    return Purse(connection.ledger(ledger), None if owner is None else owner.identity, cover=cover)


def _config(default: GenerationConfig, args: tuple[Any, ...], kwargs: dict[str, Any]) -> GenerationConfig:
    return kwargs.get("generation_config") or (args[0] if args else None) or default


def _drafts(default: GenerationConfig, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Does this call of generate() decode speculatively?"""
    if kwargs.get("assistant_model") is not None:
        return True
    lookup = kwargs.get("prompt_lookup_num_tokens", _config(default, args, kwargs).prompt_lookup_num_tokens)
    return lookup is not None


def _keeps_states(default: GenerationConfig, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Does this call of generate() ask for hidden states of each block?"""
    return bool(kwargs.get("output_hidden_states", _config(default, args, kwargs).output_hidden_states))


def _room(default: GenerationConfig, ids: torch.Tensor | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """How many positions a call of generate() can reach."""
    config = _config(default, args, kwargs)
    prompt = _prompt_length(ids, kwargs)
    new = kwargs.get("max_new_tokens") or (None if "max_length" in kwargs else config.max_new_tokens)
    length = prompt + new if new else kwargs.get("max_length") or config.max_length or prompt + 20
    return int(max(length, prompt + 1)) + DRAFT_ROOM


def _prompt_length(ids: torch.Tensor | None, kwargs: dict[str, Any]) -> int:
    if (embeds := kwargs.get("inputs_embeds")) is not None:
        return int(embeds.shape[1])
    return ids.shape[1] if ids is not None else 1


def _refuse_padding(mask: torch.Tensor | None) -> None:
    """Before a text is given anew because of its length, which is counted with padding: then it must have none."""
    if mask is not None and mask.ndim == 2 and not mask[:, 0].any():
        raise RequestError("every row of the prompt begins with padding: leave those columns out")


def _load(checkpoint: Checkpoint, anatomy: Anatomy, dtype: torch.dtype) -> Any:
    """The model without its blocks: only tensors outside them are read. Raises CheckpointError."""
    names = {key: name for key in checkpoint.weight_map if (name := anatomy.name_of(key)) is not None}
    keys = [key for key in names if anatomy.block_of(key) is None]
    base = MODEL_FOR_CAUSAL_LM_MAPPING[type(anatomy.config)]
    with quiet_transformers():
        model, info = _distributed_class(base).from_pretrained(
            None,
            anatomy.returns_tuple,
            config=anatomy.config,
            state_dict={names[key]: tensor for key, tensor in checkpoint.lazy(keys).items()},
            dtype=dtype,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            output_loading_info=True,
        )
    if wrong := info["mismatched_keys"]:
        raise CheckpointError(f"{checkpoint.source.name} does not fit its own configuration: {sorted(wrong)[:3]}")
    if missing := sorted(info["missing_keys"]):
        raise CheckpointError(f"{checkpoint.source.name} lacks {len(missing)} tensors: {', '.join(missing[:3])}")
    folder = checkpoint.source.folder
    if (folder / GENERATION_CONFIG).is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    read_plainly(model.config)
    return model.eval()
