"""What stands where the blocks were: a cache that is a position, and a chain that sends what nodes can understand."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nectar.errors import RequestError
from nectar.remote import RemoteCache, RemoteChain, check_positions, mark_used, row_padding
from nectar_swarm.cachename import CACHE, OLD_CACHE
from transformers import DynamicCache


class FakeSession:
    """Stands for a session: keeps what it is asked and answers with the input plus one."""

    def __init__(self, position: int = 0, max_length: int = 64) -> None:
        self.position, self.max_length = position, max_length
        self.asked: list[tuple[int, int, tuple[int, ...], tuple[int, ...]]] = []
        self.closed = False

    def step(
        self, hidden: torch.Tensor, position: int, reorder: tuple[int, ...] = (), pads: tuple[int, ...] = ()
    ) -> torch.Tensor:
        self.asked.append((position, hidden.shape[1], reorder, pads))
        return hidden + 1

    def __enter__(self) -> "FakeSession":
        return self

    def __exit__(self, *exception: object) -> None:
        self.closed = True


def cache_of(session: FakeSession) -> RemoteCache:
    return RemoteCache(session)  # type: ignore[arg-type]  # what it needs of a session


def chain(session: FakeSession | None = None, returns_tuple: bool = False) -> RemoteChain:
    chain = RemoteChain(returns_tuple, torch.nn.Identity())
    if session is not None:
        chain.blocks = SimpleNamespace(session=lambda length: session)  # type: ignore[assignment]  # as above
    return chain


def test_a_chain_is_of_the_kind_of_the_blocks_it_stands_for_and_has_none_of_their_weights() -> None:
    block = torch.nn.Linear(2, 2)
    block.kind = "attention"
    chain = RemoteChain(False, block)
    assert chain.kind == "attention"
    assert not list(chain.parameters())
    with pytest.raises(AttributeError):
        _ = chain.other


# Texts that are given anew


def test_a_text_that_is_given_anew_goes_on_in_longer_sessions_and_the_next_time_in_the_same() -> None:
    short, long = FakeSession(), FakeSession()
    cache = RemoteCache(short, longer=lambda: [long])  # type: ignore[arg-type,list-item]  # what it needs of a session
    cache.layers[0].length = 5
    cache.reorder_cache(torch.tensor([1, 0]))
    for _ in range(2):
        cache.begin_anew()
        assert cache.get_seq_length() == 0
        assert cache.take_reorder() == ()
        assert list(cache.sessions) == [long]
        cache.layers[0].length = 9


def test_a_text_that_grows_past_its_frequencies_and_is_not_given_anew_is_refused() -> None:
    session = FakeSession(max_length=6)
    cache = RemoteCache(session, longer=lambda: [session])  # type: ignore[arg-type,list-item]  # as above
    cache.layers[0].length = 5
    cache.check_room(1)
    with pytest.raises(RequestError, match="more than 6 tokens have other rotary frequencies"):
        cache.check_room(2)


# Padding and positions


@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.integers(6, 9))
def test_padding_on_the_left_is_counted(pads: list[int], width: int) -> None:
    mask = (torch.arange(width) >= torch.tensor(pads)[:, None]).long()
    assert row_padding(mask, len(pads)) == tuple(pads)
    assert row_padding(mask.bool(), len(pads)) == tuple(pads)


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=3))
def test_any_mask_is_either_left_padding_or_refused(rows: list[list[bool]]) -> None:
    mask = torch.tensor(rows)
    if all(row == sorted(row) for row in rows):
        assert row_padding(mask, len(rows)) == tuple(row.count(False) for row in rows)
    else:
        with pytest.raises(RequestError, match="padding_side='left'"):
            row_padding(mask, len(rows))


def test_no_mask_or_one_of_another_kind_is_no_padding() -> None:
    assert row_padding(None, 3) == (0, 0, 0)
    assert row_padding(torch.zeros(2, 1, 4, 4), 2) == (0, 0)
    assert row_padding(torch.zeros(2, 0), 2) == (0, 0)


@given(st.integers(0, 5), st.integers(1, 5), st.lists(st.integers(0, 4), min_size=1, max_size=3))
def test_positions_that_nodes_count_themselves_are_accepted(position: int, tokens: int, pads: list[int]) -> None:
    own = torch.arange(position, position + tokens) - torch.tensor(pads)[:, None]
    check_positions(own, position, tokens, tuple(pads))
    check_positions(own.masked_fill(own < 0, 1), position, tokens, tuple(pads))  # padding has no position
    check_positions(None, position, tokens, tuple(pads))
    if own.max() >= 0:
        with pytest.raises(RequestError, match="leave them out"):
            check_positions(own + (own == own.max()).long(), position, tokens, tuple(pads))


def test_one_row_of_positions_may_stand_for_all() -> None:
    check_positions(torch.tensor([[3, 4]]), 3, 2, (0, 0))
    with pytest.raises(RequestError):
        check_positions(torch.tensor([[3, 4]]), 3, 2, (0, 1))


# The cache


def test_the_cache_begins_where_its_session_is() -> None:
    cache = cache_of(FakeSession(position=5))
    assert cache.get_seq_length() == 5
    assert cache.layers[0].get_mask_sizes(3) == (8, 0)


@pytest.mark.parametrize("tokens", [2, -2])
def test_cropping_goes_back_so_many_tokens(tokens: int) -> None:
    layer = cache_of(FakeSession(position=5)).layers[0]
    layer.crop(tokens)
    assert layer.get_seq_length() == 3
    layer.reset()
    assert layer.get_seq_length() == 0


def test_the_cache_holds_no_keys_and_values() -> None:
    with pytest.raises(RequestError, match="remote"):
        cache_of(FakeSession()).update(torch.zeros(1), torch.zeros(1), 0)


@given(st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=5))
def test_reorders_before_a_step_leave_as_one(orders: list[list[int]]) -> None:
    cache, rows = cache_of(FakeSession()), torch.arange(4)
    for order in orders:
        cache.reorder_cache(torch.tensor(order))
        rows = rows[torch.tensor(order)]
    reorder = cache.take_reorder()
    assert reorder == (() if rows.tolist() == [0, 1, 2, 3] else tuple(rows.tolist()))
    assert cache.take_reorder() == ()


# The chain


@pytest.mark.parametrize("returns_tuple", [False, True])
def test_a_forward_without_a_cache_has_a_session_of_its_own(returns_tuple: bool) -> None:
    session = FakeSession()
    remote = chain(session, returns_tuple)
    remote.remember({"attention_mask": torch.tensor([[0, 1, 1], [1, 1, 1]])})
    out: Any = remote(torch.zeros(2, 3, 4))
    if returns_tuple:
        out, rest = out
        assert rest is None
    assert torch.equal(out, torch.ones(2, 3, 4))
    assert session.asked == [(0, 3, (), (1, 0))]
    assert session.closed


def test_steps_of_a_cache_go_on_in_its_session() -> None:
    session, remote = FakeSession(), chain()
    cache = cache_of(session)
    remote.remember({CACHE: cache})
    remote(torch.zeros(2, 3, 4))
    cache.reorder_cache(torch.tensor([1, 1]))
    remote(torch.zeros(2, 1, 4))
    cache.crop(-2)
    remote(torch.zeros(2, 1, 4))
    assert session.asked == [(0, 3, (), (0, 0)), (3, 1, (1, 1), (0, 0)), (2, 1, (), (0, 0))]
    assert cache.get_seq_length() == 3
    assert not session.closed


@pytest.mark.parametrize("name", sorted({CACHE, OLD_CACHE}))
def test_a_cache_is_found_by_either_name_of_its_argument(name: str) -> None:
    session, remote = FakeSession(), chain()
    remote.remember({name: cache_of(session)})
    for tokens in (3, 1):
        remote(torch.zeros(1, tokens, 4))
    assert session.asked == [(0, 3, (), (0,)), (3, 1, (), (0,))]


def test_a_step_that_fails_leaves_the_cache_where_it_was() -> None:
    session, remote = FakeSession(), chain()
    cache = cache_of(session)
    remote.remember({CACHE: cache, "position_ids": torch.tensor([[4]])})
    with pytest.raises(RequestError, match="position_ids"):
        remote(torch.zeros(1, 1, 4))
    assert cache.get_seq_length() == 0
    assert session.asked == []


def test_a_chain_without_a_swarm_says_how_to_get_one() -> None:
    remote = chain()
    remote.remember({})
    with pytest.raises(RequestError, match="not connected to a swarm"):
        remote(torch.zeros(1, 1, 4))


def test_a_cache_of_another_model_is_refused_once_it_holds_something_or_should() -> None:
    session = FakeSession()
    remote = chain(session)
    used = DynamicCache()
    remote.remember({CACHE: used})
    remote(torch.zeros(1, 1, 4))
    mark_used((None, used))
    for cache in (SimpleNamespace(get_seq_length=lambda: 2), used):
        remote.remember({CACHE: cache})
        with pytest.raises(RequestError, match=CACHE):
            remote(torch.zeros(1, 1, 4))


# Hidden states of each block


class FakeBlocks:
    """Stands for two blocks, each of which can have a session of its own."""

    def __init__(self) -> None:
        self.sessions: list[FakeSession] = []

    def __iter__(self) -> Iterator["FakeBlocks"]:
        return iter((self, self))

    def session(self, length: int) -> FakeSession:
        self.sessions.append(FakeSession())
        return self.sessions[-1]


def test_what_goes_into_each_block_is_kept_on_request_and_only_then() -> None:
    remote, blocks = chain(), FakeBlocks()
    remote.blocks = blocks  # type: ignore[assignment]  # as above
    remote.remember({})
    with remote.keeping_inputs() as inputs:
        out = remote(torch.zeros(1, 3, 4))
    assert [float(hidden.mean()) for hidden in (*inputs, out)] == [0.0, 1.0, 2.0]
    assert [session.asked for session in blocks.sessions] == [[(0, 3, (), (0,))]] * 2
    assert all(session.closed for session in blocks.sessions)
    remote(torch.zeros(1, 3, 4))
    assert len(inputs) == 2
    assert len(blocks.sessions) == 3


def test_sessions_of_each_block_move_together() -> None:
    remote, sessions = chain(), [FakeSession(), FakeSession()]
    remote.blocks = FakeBlocks()  # type: ignore[assignment]  # as above
    cache = RemoteCache(*sessions)  # type: ignore[arg-type]  # as above
    remote.remember({CACHE: cache})
    with remote.keeping_inputs():
        remote(torch.zeros(2, 3, 4))
        cache.reorder_cache(torch.tensor([1, 1]))
        remote(torch.zeros(2, 1, 4))
    assert [session.asked for session in sessions] == [[(0, 3, (), (0, 0)), (3, 1, (1, 1), (0, 0))]] * 2


def test_a_session_of_all_blocks_has_no_hidden_states_of_each() -> None:
    remote = chain()
    remote.blocks = FakeBlocks()  # type: ignore[assignment]  # as above
    remote.remember({CACHE: cache_of(FakeSession())})
    with remote.keeping_inputs(), pytest.raises(RequestError, match="all blocks at once"):
        remote(torch.zeros(1, 1, 4))
