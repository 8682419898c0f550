"""One head for many threads: the logits of each are its own, and nobody's trouble is another's."""

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import torch
from nectar.head import LARGE, MAX_ROWS, SharedHead, share_head
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

WIDTH, VOCABULARY = 48, 1000


class GatedHead(SharedHead):
    """Computes nothing until its gate is opened, and keeps how many calls each batch had."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__(head)
        self.gate = threading.Event()
        self.batches: list[int] = []

    def _compute(self, batch: Any) -> None:
        self.batches.append(len(batch))
        assert self.gate.wait(30)
        super()._compute(batch)


class BrittleHead(GatedHead):
    """Fails whenever it should compute for several."""

    def _compute(self, batch: Any) -> None:
        super()._compute(batch)
        if len(batch) > 1:
            for call in batch:
                call.logits = None
            raise MemoryError("too much at once")


class Interrupted(Exception): ...


def linear(dtype: torch.dtype = torch.float32, bias: bool = False) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(WIDTH, VOCABULARY, bias=bias, dtype=dtype)


def rows(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(seed)).to(dtype)


def without_gradients(head: Callable[[torch.Tensor], torch.Tensor], hidden: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return head(hidden)


def until_waiting(head: SharedHead, count: int) -> None:
    deadline_s = time.monotonic() + 30
    while head.waiting < count:
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def queue_up(pool: ThreadPoolExecutor, head: GatedHead, hiddens: list[torch.Tensor]) -> list[Future[torch.Tensor]]:
    """One thread for each; the first leads and is held at the gate, the others wait for it."""
    futures = []
    for at, hidden in enumerate(hiddens):
        futures.append(pool.submit(without_gradients, head, hidden))
        if at == 0:
            while not head.batches:
                time.sleep(0.001)
        until_waiting(head, at)
    return futures


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_alone_the_logits_are_the_layer_s_own_bit_for_bit(dtype: torch.dtype) -> None:
    layer = linear(dtype)
    head = SharedHead(layer)
    for shape in ((1, 1), (3, 1), (2, 5), (4,)):
        hidden = rows(*shape, dtype=dtype)
        assert torch.equal(without_gradients(head, hidden), layer(hidden))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_thread_gets_its_own_rows(dtype: torch.dtype, bias: bool) -> None:
    layer = linear(dtype, bias)
    head = GatedHead(layer)
    hiddens = [rows(*shape, dtype=dtype, seed=at) for at, shape in enumerate([(1, 1)] * 5 + [(3, 1), (2, 2), (1,)])]
    with ThreadPoolExecutor(len(hiddens)) as pool:
        futures = queue_up(pool, head, hiddens)
        head.gate.set()
        outs = [future.result(30) for future in futures]
    assert head.batches == [1, len(hiddens) - 1]
    for hidden, out in zip(hiddens, outs, strict=True):
        torch.testing.assert_close(out, layer(hidden))


def test_a_batch_is_bounded_and_nobody_is_left_behind() -> None:
    layer = linear()
    head = GatedHead(layer)
    hiddens = [rows(1, seed=0), *(rows(MAX_ROWS // 2, seed=at) for at in range(1, 6))]
    with ThreadPoolExecutor(len(hiddens)) as pool:
        futures = queue_up(pool, head, hiddens)
        head.gate.set()
        for hidden, future in zip(hiddens, futures, strict=True):
            torch.testing.assert_close(future.result(30), layer(hidden))
    assert head.batches == [1, 2, 2, 1]


def test_what_does_not_fit_fails_alone() -> None:
    head = SharedHead(linear())
    with pytest.raises(RuntimeError):
        without_gradients(head, torch.zeros(1, 1, WIDTH + 1))
    assert without_gradients(head, rows(1, 1)).shape == (1, 1, VOCABULARY)


def test_a_batch_that_fails_is_computed_one_by_one() -> None:
    layer = linear()
    head = BrittleHead(layer)
    hiddens = [rows(1, 1, seed=at) for at in range(4)]
    with ThreadPoolExecutor(len(hiddens)) as pool:
        futures = queue_up(pool, head, hiddens)
        head.gate.set()
        assert torch.equal(futures[0].result(30), layer(hiddens[0]))
        with pytest.raises(MemoryError):
            futures[1].result(30)  # who led the batch
        for hidden, future in zip(hiddens[2:], futures[2:], strict=True):
            assert torch.equal(future.result(30), layer(hidden))


def test_an_interrupted_thread_leaves_the_others_a_leader() -> None:
    layer = linear()
    head = GatedHead(layer)

    def interrupt(*_: object) -> None:
        raise Interrupted

    with ThreadPoolExecutor(2) as pool:
        first = queue_up(pool, head, [rows(1, 1)])[0]
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            with pytest.raises(Interrupted):
                without_gradients(head, rows(1, 1, seed=1))  # waits for the first, which is held
        finally:
            signal.signal(signal.SIGALRM, before)
        last = pool.submit(without_gradients, head, rows(1, 1, seed=2))
        until_waiting(head, 1)
        head.gate.set()
        assert torch.equal(first.result(30), layer(rows(1, 1)))
        assert torch.equal(last.result(30), layer(rows(1, 1, seed=2)))


def test_with_gradients_nothing_is_shared() -> None:
    layer = linear()
    out = SharedHead(layer)(rows(1, 1))
    assert out.requires_grad


@pytest.mark.parametrize(("vocabulary", "shared"), [(512, False), (LARGE // 64, True)])
def test_only_a_large_head_is_shared(vocabulary: int, shared: bool) -> None:
    config = LlamaConfig(vocab_size=vocabulary, hidden_size=64, intermediate_size=64, num_hidden_layers=1,
                         num_attention_heads=2, tie_word_embeddings=True)  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    ids = torch.tensor([[3, 5, 7]])
    with torch.no_grad():
        before = model(ids).logits
        share_head(model)
        assert torch.equal(model(ids).logits, before)
    assert isinstance(model.lm_head.forward, SharedHead) is shared
