"""Every family, whichever way it is run, gives each session what it gives alone, whoever runs beside it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from nectar_node.errors import SpanError
from nectar_node.packed import PackedRunner
from nectar_node.runner import Runner
from nectar_node.span import SpanModel

from tests.families.configs import PACKED, PADDED
from tests.node.sessions import START, STOP, Turn, cached, noise, recomputed, run, turns_of

FAMILIES = (*PACKED, *PADDED, "qwen3_next")
PROMPTS, DECODE, CHUNK = (23, 5, 1, 14, 9), 6, 7
LENGTH = 32
NOISE = 1e-3  # of sums in another order
BF16_NOISE = 0.05  # relative
every_family = pytest.mark.parametrize("family", FAMILIES)
every_family_that_rolls_back = pytest.mark.parametrize("family", [name for name in FAMILIES if name != "qwen3_next"])
Others = Callable[[], tuple[Any, Turn]]


@pytest.fixture
def runner(choose: Callable[..., Runner], family: str) -> Iterator[Runner]:
    """A family's runner; its KV must be there again after the test."""
    runner = choose(family)
    yield runner
    assert runner.kv_free == runner.kv_total


@pytest.fixture
def span(load_span: Callable[..., SpanModel], family: str) -> SpanModel:
    return load_span(family, START, STOP)


@pytest.fixture
def others(runner: Runner) -> Iterator[Others]:
    """Somebody else, who decodes beside the session of the test: its next step, each time."""
    kv = runner.reserve(START, STOP, LENGTH, (0,))
    turns = iter(turns_of(noise(1, LENGTH, seed=99), 5, *[1] * (LENGTH - 5)))
    run(runner, (kv, next(turns)))
    yield lambda: (kv, next(turns))
    runner.release(kv)


def play(runner: Runner, turns: list[Turn], pads: tuple[int, ...], others: Others) -> list[torch.Tensor]:
    """A session's outputs, each computed beside a step of somebody else."""
    kv = runner.reserve(START, STOP, LENGTH, pads)
    outputs = [run(runner, (kv, turn), others())[0] for turn in turns]
    runner.release(kv)
    return outputs


def assert_close(actual: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    torch.testing.assert_close(torch.cat(actual, 1), torch.cat(expected, 1), rtol=0, atol=NOISE)


def stagger(runner: Runner, inputs: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Each session begins an iteration after the one before: prompts in chunks beside tokens of those ahead."""
    kvs = [runner.reserve(START, STOP, LENGTH, (0,)) for _ in inputs]
    done, outputs, begun = [0] * len(inputs), [[] for _ in inputs], 0
    while any(at < whole.shape[1] for at, whole in zip(done, inputs, strict=True)):
        begun += 1
        ready = [number for number, whole in enumerate(inputs[:begun]) if done[number] < whole.shape[1]]
        sizes = [max(1, min(CHUNK, PROMPTS[number] - done[number])) for number in ready]
        turns = [
            Turn(done[number], inputs[number][:, done[number] : done[number] + size])
            for number, size in zip(ready, sizes, strict=True)
        ]
        together = run(runner, *((kvs[number], turn) for number, turn in zip(ready, turns, strict=True)))
        for number, size, output in zip(ready, sizes, together, strict=True):
            outputs[number].append(output)
            done[number] += size
    for kv in kvs:
        runner.release(kv)
    return outputs


@every_family
def test_sessions_that_begin_at_different_times_give_together_what_each_gives_alone(
    runner: Runner, span: SpanModel
) -> None:
    inputs = [noise(1, prompt + DECODE, seed=prompt) for prompt in PROMPTS]
    for prompt, whole, output in zip(PROMPTS, inputs, stagger(runner, inputs), strict=True):
        assert_close(output, cached(span, turns_of(whole, prompt, *[1] * DECODE)))


@pytest.mark.parametrize("family", PACKED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_session_alone_is_bitwise_transformers_own(
    choose: Callable[..., Runner], load_span: Callable[..., SpanModel], family: str, dtype: torch.dtype
) -> None:
    runner, turns = choose(family, dtype), turns_of(noise(1, 23 + DECODE, dtype=dtype), 23, *[1] * DECODE)
    assert type(runner) is PackedRunner
    kv = runner.reserve(START, STOP, LENGTH, (0,))
    outputs = [run(runner, (kv, turn))[0] for turn in turns]
    runner.release(kv)
    for output, expected in zip(outputs, cached(load_span(family, START, STOP, dtype), turns), strict=True):
        assert torch.equal(output, expected)


@every_family
def test_left_padded_rows_give_what_each_gives_without_its_padding(
    runner: Runner, span: SpanModel, others: Others
) -> None:
    pads = (0, 2, 7)
    turns = turns_of(noise(3, 17), 1, 5, 6, 1, 1, 3)  # in the first steps rows are nothing but padding
    outputs = play(runner, turns, pads, others)
    assert_close(outputs, recomputed(span, turns, pads))
    assert not outputs[0][2].any(), "what is padding has no output"


@every_family_that_rolls_back
def test_an_earlier_position_takes_back_what_came_after_it(runner: Runner, span: SpanModel, others: Others) -> None:
    hidden = noise(1, 40)
    positions = (0, 12, 13, 17, 14, 15, 3, 0, 9)  # past the windows of 8, and back to the beginning
    sizes = (12, 1, 4, 1, 1, 8, 2, 9, 1)
    turns = [Turn(at, hidden[:, 2 * at : 2 * at + size]) for at, size in zip(positions, sizes, strict=True)]
    assert_close(play(runner, turns, (0,), others), recomputed(span, turns, (0,)))


@every_family
def test_reordered_rows_go_on_from_the_pasts_they_were_given(runner: Runner, span: SpanModel, others: Others) -> None:
    orders = ((), (1, 1, 0, 3), (0, 2, 1, 3), (3, 3, 3, 3), (), (2, 0, 1, 3))
    pads = (2, 2, 2, 2)
    turns = [
        Turn(turn.position, turn.hidden, order)
        for turn, order in zip(turns_of(noise(4, 15), 9, 1, 1, 1, 2, 1), orders, strict=True)
    ]
    assert_close(play(runner, turns, pads, others), recomputed(span, turns, pads))


@every_family_that_rolls_back
def test_a_rollback_and_a_reorder_may_come_together(runner: Runner, span: SpanModel, others: Others) -> None:
    hidden = noise(3, 24)
    steps = ((0, 9, ()), (9, 3, (2, 0, 0)), (10, 1, (1, 1, 2)), (6, 5, (0, 2, 1)), (11, 1, ()))
    turns = [Turn(at, hidden[:, 2 * at : 2 * at + size], order) for at, size, order in steps]
    assert_close(play(runner, turns, (0, 0, 0), others), recomputed(span, turns, (0, 0, 0)))


@every_family
def test_sessions_of_parts_of_the_span_have_a_past_of_their_own(runner: Runner, span: SpanModel) -> None:
    turns = turns_of(noise(1, 14), 9, 1, 3, 1)
    ranges = ((1, 3), (3, 5), (2, 3))
    kvs = [runner.reserve(start, stop, LENGTH, (0,)) for start, stop in ranges]
    outputs: list[list[torch.Tensor]] = [[] for _ in ranges]
    for turn in turns:
        for kv, output in zip(kvs, outputs, strict=True):  # in turns, as iterations of the engine
            output += run(runner, (kv, turn))
    for (start, stop), kv, output in zip(ranges, kvs, outputs, strict=True):
        assert_close(output, cached(span, turns, start, stop))
        runner.release(kv)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt_oss", "deepseek_v3", "bloom", "qwen3_next"])
def test_bfloat16_sessions_together_differ_from_alone_by_their_rounding(
    choose: Callable[..., Runner], load_span: Callable[..., SpanModel], family: str
) -> None:
    span = load_span(family, START, STOP, torch.bfloat16)
    inputs = [noise(1, prompt + DECODE, seed=prompt, dtype=torch.bfloat16) for prompt in PROMPTS]
    for prompt, whole, output in zip(PROMPTS, inputs, stagger(choose(family, torch.bfloat16), inputs), strict=True):
        alone = torch.cat(cached(span, turns_of(whole, prompt, *[1] * DECODE)), 1)
        together = torch.cat(output, 1)
        assert together.dtype is torch.bfloat16
        error = (together - alone).float().norm() / alone.float().norm()
        assert error < BF16_NOISE


@pytest.mark.parametrize("family", ["llama", "bloom", "qwen3_next"])
def test_sessions_of_other_number_formats_share_an_iteration(runner: Runner, span: SpanModel) -> None:
    formats = (torch.float32, torch.bfloat16, torch.float16)
    kvs = [runner.reserve(START, STOP, LENGTH, (0,)) for _ in formats]
    sessions = [turns_of(noise(1, 9, dtype=dtype), 7, 1, 1) for dtype in formats]
    outputs = [run(runner, *zip(kvs, turns, strict=True)) for turns in zip(*sessions, strict=True)]
    for kv, turns, output in zip(kvs, sessions, zip(*outputs, strict=True), strict=True):
        assert_close(list(output), cached(span, turns))
        runner.release(kv)


@every_family
def test_what_is_not_a_number_stays_in_its_session(runner: Runner, span: SpanModel, others: Others) -> None:
    sick = runner.reserve(START, STOP, LENGTH, (0,))
    kv = runner.reserve(START, STOP, LENGTH, (0,))
    turns = turns_of(noise(1, 11), 9, 1, 1)
    outputs = []
    for turn in turns:
        nan = Turn(turn.position, torch.full_like(turn.hidden, float("nan")))
        poisoned, output, other = run(runner, (sick, nan), (kv, turn), others())
        assert poisoned.isnan().any()
        assert other.isfinite().all()
        outputs.append(output)
    runner.release(sick)
    runner.release(kv)
    assert_close(outputs, cached(span, turns))
    assert_close(play(runner, turns, (0,), others), cached(span, turns))  # in the very stretch where it was


@pytest.mark.parametrize("family", ["qwen3_next"])
def test_recurrent_state_is_not_rolled_back_but_to_the_beginning(runner: Runner, span: SpanModel) -> None:
    turns = turns_of(noise(1, 8), 6, 1, 1)
    kv = runner.reserve(START, STOP, LENGTH, (0,))
    run(runner, *[(kv, turn) for turn in turns[:1]])
    run(runner, (kv, turns[1]))
    with pytest.raises(SpanError, match="cannot be rolled back"):
        run(runner, (kv, turns[1]))
    again = [run(runner, (kv, turn))[0] for turn in turns]
    assert_close(again, cached(span, turns))
    runner.release(kv)


@pytest.mark.parametrize("family", ["phi3_longrope"])
def test_frequencies_that_a_whole_batch_shares_are_not_those_of_somebody_else(runner: Runner, span: SpanModel) -> None:
    long, short = turns_of(noise(1, 24), 20, 1, 1, 1, 1), turns_of(noise(1, 8), 4, 1, 1, 1, 1)
    kvs = [runner.reserve(START, STOP, length, (0,)) for length in (24, 8)]
    outputs = [run(runner, *zip(kvs, turns, strict=True)) for turns in zip(long, short, strict=True)]
    for kv, turns, output in zip(kvs, (long, short), zip(*outputs, strict=True), strict=True):
        assert_close(list(output), cached(span, turns))
        runner.release(kv)


@pytest.mark.parametrize("family", ["phi3_longrope"])
def test_a_long_text_in_chunks_has_the_frequencies_of_long_texts_from_its_beginning(
    runner: Runner, span: SpanModel
) -> None:
    hidden = noise(1, 24)
    kv = runner.reserve(START, STOP, 24, (0,))
    chunks = [run(runner, (kv, turn))[0] for turn in turns_of(hidden, 4, 8, 8, 4)]
    assert_close([torch.cat(chunks, 1)], cached(span, turns_of(hidden, 24)))
    runner.release(kv)


@pytest.mark.parametrize("family", ["llama_dynamic"])
def test_frequencies_that_change_with_each_token_are_refused(runner: Runner, span: SpanModel) -> None:
    kv = runner.reserve(START, STOP, 257, (0,))
    turns = turns_of(noise(1, 257), 256, 1)
    assert_close([run(runner, (kv, turns[0]))[0]], cached(span, turns[:1]))
    with pytest.raises(SpanError, match="more than 256 tokens"):
        run(runner, (kv, turns[1]))
    runner.release(kv)


@pytest.mark.parametrize("family", ["lfm2"])
def test_convolutions_are_rolled_back_as_far_as_they_are_recorded(runner: Runner, span: SpanModel) -> None:
    kv, turns = runner.reserve(START, STOP, 16, (0,)), turns_of(noise(1, 12), 6, 1, 4, 1)
    expected = cached(span, turns)
    outputs = [run(runner, (kv, turn))[0] for turn in turns[:3]]
    outputs[2] = run(runner, (kv, turns[2]))[0]
    assert_close([*outputs, *run(runner, (kv, turns[3]))], expected)
    with pytest.raises(SpanError, match="rolled back by 1 tokens here, not by 2"):
        run(runner, (kv, Turn(10, turns[3].hidden)))
    runner.release(kv)


@pytest.mark.parametrize("family", ["jamba"])
def test_state_that_begins_anew_with_several_tokens_goes_on_token_by_token(runner: Runner, span: SpanModel) -> None:
    kv, hidden = runner.reserve(START, STOP, 16, (0,)), noise(1, 12)
    chunks = [run(runner, (kv, turn))[0] for turn in turns_of(hidden, 5, 4, 1, 2)]
    assert_close([torch.cat(chunks, 1)], cached(span, turns_of(hidden, 12)))
    runner.release(kv)
