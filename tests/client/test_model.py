"""The client's part of a model: what it loads, how long its sessions must be, and what a session goes on from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nectar.errors import RequestError, SessionError
from nectar.model import DRAFT_ROOM, AutoDistributedModelForCausalLM, _common_length, _load, _room
from nectar.remote import RemoteCache, RemoteChain
from nectar.session import Session
from nectar_swarm.anatomy import examine, find_stack, load_config
from nectar_swarm.cachename import CACHE, OLD_CACHE
from nectar_swarm.checkpoint import Checkpoint
from nectar_swarm.errors import CheckpointError, UnreachableError
from nectar_swarm.folder import LocalFolder
from nectar_swarm.modelfiles import INDEX
from transformers import AutoModelForCausalLM, GenerationConfig

FAMILIES = ["llama", "bloom"]


class LocalSession:
    """Stands for a session: runs the whole model's own blocks here, from the start each time."""

    def __init__(self, whole: Any) -> None:
        self.whole, self.position = whole, 0
        self.past: torch.Tensor | None = None
        self.token_ids: torch.Tensor | None = None
        self.lengths: list[int] = []
        self.pads: tuple[int, ...] = ()
        self.fails_at = 0  # which step, counted from 1

    def step(
        self, hidden: torch.Tensor, position: int, reorder: tuple[int, ...] = (), pads: tuple[int, ...] = ()
    ) -> torch.Tensor:
        self.lengths.append(hidden.shape[1])
        self.pads = pads
        if len(self.lengths) == self.fails_at:
            raise SessionError("nobody serves")
        past = hidden[:, :0] if self.past is None else self.past[:, :position]
        self.past = torch.cat([past[list(reorder)] if reorder else past, hidden], 1)
        self.position = position + hidden.shape[1]
        return self._blocks(self.past)[:, position:]

    def _blocks(self, hidden: torch.Tensor) -> torch.Tensor:
        owner, stack = find_stack(self.whole.base_model)
        blocks = getattr(owner, stack)
        seen: dict[str, Any] = {}
        inject = blocks[0].register_forward_pre_hook(
            lambda module, args, kwargs: (
                ((hidden, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": hidden})
            ),
            with_kwargs=True,
        )
        keep = blocks[-1].register_forward_hook(lambda module, args, out: seen.update(out=out))
        self.whole.base_model(inputs_embeds=torch.zeros_like(hidden), use_cache=False)
        inject.remove()
        keep.remove()
        return seen["out"][0] if isinstance(seen["out"], tuple) else seen["out"]

    def session(self, length: int) -> "LocalSession":
        """Stands for the blocks too: itself, again and again."""
        return self

    def __enter__(self) -> "LocalSession":
        return self

    def __exit__(self, *exception: object) -> None: ...


@pytest.fixture
def load(checkpoint_folder: Callable[[str], Path]) -> Callable[[str], Any]:
    """The client's model of a family, and the checkpoint that it was read from."""

    def load(family: str) -> Any:
        checkpoint = Checkpoint(LocalFolder(checkpoint_folder(family)))
        model = _load(checkpoint, examine(load_config(checkpoint.source)), torch.float32)
        model.generation_config.eos_token_id = None
        return model, checkpoint

    return load


@pytest.fixture
def whole(checkpoint_folder: Callable[[str], Path]) -> Callable[[str], Any]:
    def load(family: str) -> Any:
        model = AutoModelForCausalLM.from_pretrained(checkpoint_folder(family), dtype=torch.float32).eval()
        model.generation_config.eos_token_id = None
        return model

    return load


def damage(folder: Path, key: str) -> Checkpoint:
    index = json.loads((folder / INDEX).read_text())
    del index["weight_map"][key]
    (folder / INDEX).write_text(json.dumps(index))
    return Checkpoint(LocalFolder(folder))


# Loading


@pytest.mark.parametrize("family", FAMILIES)
def test_only_tensors_outside_the_blocks_are_read(family: str, load: Callable[[str], Any]) -> None:
    model, checkpoint = load(family)
    anatomy = examine(load_config(checkpoint.source))
    outside = {shard for key, shard in checkpoint.weight_map.items() if anatomy.block_of(key) is None}
    assert set(checkpoint.opened) == outside < set(checkpoint.weight_map.values())
    owner, stack = find_stack_of(model)
    assert [type(block) for block in getattr(owner, stack)] == [RemoteChain]


def find_stack_of(model: Any) -> tuple[Any, str]:
    """The stack's owner; the configuration of the client's model still says six blocks."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, torch.nn.ModuleList) and any(isinstance(one, RemoteChain) for one in child):
                return module, name
    raise AssertionError("no RemoteChain")


@pytest.mark.parametrize(
    ("family", "key"),
    [
        ("llama", "lm_head.weight"),
        ("llama", "model.embed_tokens.weight"),
        ("llama", "model.norm.weight"),
        ("bloom", "transformer.word_embeddings.weight"),
    ],
)
def test_a_lacking_tensor_is_named(family: str, key: str, damaged_folder: Callable[[str], Path]) -> None:
    checkpoint = damage(damaged_folder(family), key)
    with pytest.raises(CheckpointError, match=rf"lacks \d tensors: .*{key}"):
        _load(checkpoint, examine(load_config(checkpoint.source)), torch.float32)


def test_a_lacking_block_is_none_of_the_clients_business(damaged_folder: Callable[[str], Path]) -> None:
    checkpoint = damage(damaged_folder("llama"), "model.layers.3.mlp.up_proj.weight")
    _load(checkpoint, examine(load_config(checkpoint.source)), torch.float32)


def test_tensors_that_do_not_fit_the_configuration_are_an_error(damaged_folder: Callable[[str], Path]) -> None:
    folder = damaged_folder("llama")
    config = json.loads((folder / "config.json").read_text())
    config["vocab_size"] = 100
    (folder / "config.json").write_text(json.dumps(config))
    checkpoint = Checkpoint(LocalFolder(folder))
    with pytest.raises(CheckpointError, match="does not fit its own configuration"):
        _load(checkpoint, examine(load_config(checkpoint.source)), torch.float32)


def test_a_model_needs_a_swarm(checkpoint_folder: Callable[[str], Path]) -> None:
    with pytest.raises(UnreachableError, match="no initial peers: give the address that a node prints"):
        AutoDistributedModelForCausalLM.from_pretrained(str(checkpoint_folder("llama")))


@pytest.mark.parametrize("peers", [["nobody"], "12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf"])
def test_trusted_peers_are_peer_ids(checkpoint_folder: Callable[[str], Path], peers: Any) -> None:
    with pytest.raises(RequestError, match="trusted_peers takes peer IDs"):
        AutoDistributedModelForCausalLM.from_pretrained(str(checkpoint_folder("llama")), trusted_peers=peers)


def test_a_model_is_not_made_by_its_constructor() -> None:
    with pytest.raises(RequestError, match="from_pretrained"):
        AutoDistributedModelForCausalLM()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no folder"):
        AutoDistributedModelForCausalLM.from_pretrained(str(tmp_path / "nothing"))


# Generating


@pytest.mark.parametrize("family", FAMILIES)
def test_a_forward_gives_the_whole_models_logits(
    family: str, load: Callable[[str], Any], whole: Callable[[str], Any]
) -> None:
    (model, _), local, ids = load(family), whole(family), torch.arange(2, 12)[None]
    model.chain.blocks = LocalSession(local)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, local(ids).logits)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "way", [{}, {"num_beams": 3}, {"prompt_lookup_num_tokens": 2}, {"repetition_penalty": 1.3}], ids=str
)
def test_generate_gives_the_whole_models_tokens(
    family: str, way: dict[str, Any], load: Callable[[str], Any], whole: Callable[[str], Any]
) -> None:
    (model, _), local, ids = load(family), whole(family), torch.tensor([[5, 9, 5, 9, 5, 9]])
    session = LocalSession(local)
    model.chain.blocks = session
    want = local.generate(ids, max_new_tokens=8, do_sample=False, **way)
    assert torch.equal(model.generate(ids, max_new_tokens=8, do_sample=False, **way), want)


@pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated:FutureWarning")  # as users of the old name see
@pytest.mark.parametrize("name", sorted({CACHE, OLD_CACHE}))
def test_a_cache_that_the_user_gives_is_the_one_that_is_used(
    name: str, load: Callable[[str], Any], whole: Callable[[str], Any]
) -> None:
    (model, _), local, ids = load("llama"), whole("llama"), torch.arange(2, 12)[None]
    cache = RemoteCache(LocalSession(local))  # type: ignore[arg-type]  # stands for a session
    text = model.generate(ids, max_new_tokens=4, do_sample=False, **{name: cache})
    assert torch.equal(text, local.generate(ids, max_new_tokens=4, do_sample=False))
    assert cache.get_seq_length() == 13


def test_a_shared_session_computes_what_is_new_and_no_more(
    load: Callable[[str], Any], whole: Callable[[str], Any]
) -> None:
    (model, _), local, ids = load("llama"), whole("llama"), torch.arange(2, 12)[None]
    session = LocalSession(local)
    first = model.generate(ids, session=session, max_new_tokens=4, do_sample=False)
    assert session.lengths == [10, 1, 1, 1]
    assert session.token_ids is not None
    assert session.token_ids.shape[1] == 13
    again = torch.cat([first, torch.tensor([[7, 8]])], 1)
    second = model.generate(again, session=session, max_new_tokens=2, do_sample=False)
    assert session.lengths[4:] == [3, 1]
    assert torch.equal(second, local.generate(again, max_new_tokens=2, do_sample=False))
    other = torch.cat([ids[:, :6], torch.tensor([[99, 98]])], 1)
    third = model.generate(other, session=session, max_new_tokens=2, do_sample=False)
    assert session.lengths[6:] == [2, 1]
    assert torch.equal(third, local.generate(other, max_new_tokens=2, do_sample=False))


@pytest.mark.parametrize("way", [{"num_beams": 3}, {"num_beams": 3, "num_return_sequences": 3}], ids=str)
def test_rows_that_beams_have_told_apart_are_computed_again_from_the_prompt_on(
    way: dict[str, Any], load: Callable[[str], Any], whole: Callable[[str], Any]
) -> None:
    (model, _), local, ids = load("llama"), whole("llama"), torch.arange(2, 12)[None]
    session = LocalSession(local)
    first = model.generate(ids, session=session, max_new_tokens=6, do_sample=False, **way)
    steps = len(session.lengths)
    again = torch.cat([first[:1], torch.tensor([[7, 8]])], 1)
    second = model.generate(again, session=session, max_new_tokens=6, do_sample=False, **way)
    assert torch.equal(second, local.generate(again, max_new_tokens=6, do_sample=False, **way))
    assert session.lengths[steps] == again.shape[1] - ids.shape[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_drafts_in_a_shared_session_begin_with_the_whole_text(
    family: str, load: Callable[[str], Any], whole: Callable[[str], Any]
) -> None:
    (model, _), local, ids = load(family), whole(family), torch.tensor([[5, 9, 5, 9, 5, 9]])
    session = LocalSession(local)
    first = model.generate(ids, session=session, max_new_tokens=4, do_sample=False)
    again = torch.cat([first[:, :-1], torch.tensor([[5, 9]])], 1)
    second = model.generate(again, session=session, max_new_tokens=8, do_sample=False, prompt_lookup_num_tokens=2)
    assert torch.equal(second, local.generate(again, max_new_tokens=8, do_sample=False))
    third = model.generate(second, session=session, max_new_tokens=4, do_sample=False)
    assert torch.equal(third, local.generate(second, max_new_tokens=4, do_sample=False))


def test_after_a_failure_a_session_goes_on_from_what_it_holds_for_certain(
    load: Callable[[str], Any], whole: Callable[[str], Any]
) -> None:
    (model, _), local, ids = load("llama"), whole("llama"), torch.arange(2, 12)[None]
    session = LocalSession(local)
    text = model.generate(ids, session=session, max_new_tokens=6, do_sample=False)
    session.fails_at = len(session.lengths) + 3
    other = torch.cat([ids, torch.tensor([[99, 98]])], 1)
    with pytest.raises(SessionError):
        model.generate(other, session=session, max_new_tokens=6, do_sample=False)
    steps = len(session.lengths)
    again = model.generate(text, session=session, max_new_tokens=4, do_sample=False)
    assert torch.equal(again, local.generate(text, max_new_tokens=4, do_sample=False))
    assert session.lengths[steps] == text.shape[1] - ids.shape[1]


def test_a_shared_session_needs_the_text(load: Callable[[str], Any]) -> None:
    model, _ = load("llama")
    with pytest.raises(RequestError, match="the whole text so far"):
        model.generate(inputs_embeds=torch.zeros(1, 2, 64), session=Session.__new__(Session))


# What a session goes on from


@given(
    held=st.lists(st.lists(st.integers(0, 2), min_size=5, max_size=5), min_size=1, max_size=3),
    asked=st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=1, max_size=3),
    position=st.integers(0, 6),
)
def test_a_session_goes_on_from_what_all_rows_have_in_common(
    held: list[list[int]], asked: list[list[int]], position: int
) -> None:
    length = _common_length(torch.tensor(held), torch.tensor(asked), position)
    assert 0 <= length <= min(3, position)
    if len(held) != len(asked):
        assert length == 0
        return
    same = [all(row[at] == other[at] for row, other in zip(held, asked, strict=True)) for at in range(4)]
    assert all(same[:length])
    assert length == min(3, position) or not same[length]


def test_a_session_that_holds_nothing_goes_on_from_nothing() -> None:
    assert _common_length(None, torch.tensor([[1, 2]]), 0) == 0
    assert _common_length(torch.tensor([[1, 2]]), torch.tensor([[1]]), 2) == 0


@pytest.mark.parametrize(
    ("settings", "kwargs", "positions"),
    [
        ({}, {"max_new_tokens": 7}, 12),
        ({}, {"max_length": 9}, 9),
        ({"max_new_tokens": 7}, {}, 12),
        ({"max_new_tokens": 7}, {"max_length": 9}, 9),
        ({"max_length": 30}, {"max_new_tokens": 2}, 7),
        ({"max_length": 30}, {}, 30),
        ({"max_length": 2}, {}, 6),
    ],
)
def test_a_session_has_room_for_what_generate_can_reach(
    settings: dict[str, int], kwargs: dict[str, int], positions: int
) -> None:
    ids, default = torch.zeros(1, 5, dtype=torch.long), GenerationConfig(**settings)
    assert _room(default, ids, (), kwargs) == positions + DRAFT_ROOM
    assert _room(GenerationConfig(), ids, (default,), kwargs) == positions + DRAFT_ROOM
    assert _room(GenerationConfig(), ids, (), kwargs | {"generation_config": default}) == positions + DRAFT_ROOM


def test_embeddings_count_as_the_prompt() -> None:
    kwargs = {"inputs_embeds": torch.zeros(1, 8, 4), "max_new_tokens": 3}
    assert _room(GenerationConfig(), None, (), kwargs) == 11 + DRAFT_ROOM
    assert _room(GenerationConfig(), None, (), {"max_new_tokens": 3}) == 4 + DRAFT_ROOM
