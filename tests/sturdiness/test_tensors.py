"""Tensors, positions and sessions that do not fit: refused with a typed error, after which the session goes on."""

from typing import Any

import pytest
import torch
from nectar_protocol.manifest import ModelID
from nectar_swarm.frames import Kind
from nectar_swarm.messages import Error, ErrorCode, Neighbours, Step

from tests.sturdiness.peers import BLOCKS, WIDTH, Stranger, noise, numbers
from tests.sturdiness.witnesses import Memory, run_blocks

pytestmark = pytest.mark.asyncio(loop_scope="session")

LONGEST = (48 << 20) // (4 * WIDTH)  # tokens that fit into a message


def filled(value: float) -> torch.Tensor:
    hidden = noise(1)
    hidden[0, 0, 77] = value
    return hidden


def raw(first: int = 2, last: int = 2, position: int = 4, rows: int = 0, tensor: bytes = b"") -> bytes:
    return b"".join(value.to_bytes(4, "big") for value in (first, last, position)) + rows.to_bytes(2, "big") + tensor


WRONG_STEPS: dict[str, tuple[Any, ErrorCode]] = {
    "another dtype": (Step(2, 2, 4, noise(1).bfloat16()), ErrorCode.OUT_OF_RANGE),
    "too narrow": (Step(2, 2, 4, noise(1)[..., 1:]), ErrorCode.OUT_OF_RANGE),
    "too wide": (Step(2, 2, 4, torch.cat([noise(1)] * 2, 2)), ErrorCode.OUT_OF_RANGE),
    "too many rows": (Step(2, 2, 4, noise(1).expand(512, -1, -1)), ErrorCode.OUT_OF_RANGE),
    "NaN": (Step(2, 2, 4, filled(float("nan"))), ErrorCode.OUT_OF_RANGE),
    "infinity": (Step(2, 2, 4, filled(float("-inf"))), ErrorCode.OUT_OF_RANGE),
    "a position that is not reached": (Step(2, 2, 5, noise(1)), ErrorCode.OUT_OF_RANGE),
    "the last position there is": (Step(2, 2, 2**32 - 1, noise(1)), ErrorCode.OUT_OF_RANGE),
    "beyond what was reserved": (Step(2, 2, 4, noise(13)), ErrorCode.OUT_OF_RANGE),
    "48 MiB": (Step(2, 2, 4, noise(LONGEST)), ErrorCode.OUT_OF_RANGE),
    "rows that are not there": (Step(2, 2, 4, noise(1), reorder=(1,)), ErrorCode.OUT_OF_RANGE),
    "a step after a gap": (Step(9, 9, 4, noise(1)), ErrorCode.FAILED),
    "a claim of 16 TB": (raw(tensor=b"\0\x01\0" + b"\xff" * 8), ErrorCode.MALFORMED),
    "a dtype that is none": (raw(tensor=b"\x07" + Step(2, 2, 4, noise(1)).pack()[15:]), ErrorCode.MALFORMED),
    "a tensor cut short": (Step(2, 2, 4, noise(1)).pack()[:-1], ErrorCode.MALFORMED),
    "a step before the first": (raw(0, 0, tensor=Step(2, 2, 4, noise(1)).pack()[14:]), ErrorCode.MALFORMED),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_STEPS)
async def test_a_step_that_does_not_fit_is_refused_and_its_session_goes_on(
    stranger: Stranger, local: Any, memory: Memory, wrong: str
) -> None:
    memory.limit_mib += 2 * 48  # of the longest: as it comes, and joined
    message, code = WRONG_STEPS[wrong]
    hidden = noise(5, seed=3)
    want = run_blocks(local, hidden)
    session = await stranger.open()
    await stranger.step(session, Step(1, 1, 0, hidden[:, :4]))
    assert await stranger.refusal(session, message, Kind.STEP) is code
    answer = await stranger.step(session, Step(2, 2, 4, hidden[:, 4:]))
    scale = want.abs().max().item()
    torch.testing.assert_close(answer.hidden, want[:, 4:], rtol=0, atol=1e-3 * scale)


WRONG_OPENS: dict[str, tuple[dict[str, Any], ErrorCode]] = {
    "another model": ({"model": ModelID(b"m" * 32)}, ErrorCode.WRONG_MODEL),
    "blocks that are not here": ({"start": 4, "stop": BLOCKS + 1}, ErrorCode.OUT_OF_RANGE),
    "all positions there are": ({"max_length": 2**32 - 1}, ErrorCode.BUSY),
    "more rows than fit": ({"max_length": 4096, "pads": (0,) * 512}, ErrorCode.BUSY),
    "nothing but padding": ({"pads": (16,)}, ErrorCode.OUT_OF_RANGE),
}


@pytest.mark.parametrize("wrong", WRONG_OPENS)
async def test_a_session_that_does_not_fit_is_refused(stranger: Stranger, wrong: str) -> None:
    changes, code = WRONG_OPENS[wrong]
    before = await stranger.status()
    assert await stranger.refusal(next(numbers), stranger.request(**changes)) is code
    after = await stranger.status()
    assert (after.sessions, after.kv_free) == (before.sessions, before.kv_free)


async def test_rows_beyond_the_bound_are_malformed(stranger: Stranger) -> None:
    data = stranger.request().pack()
    rows = 32 + 2 + 2 + 4 + 1
    for count in (0, 513, 0xFFFF):
        spoiled = data[:rows] + count.to_bytes(2, "big") + bytes(4 * count) + data[rows + 6 :]
        assert await stranger.refusal(next(numbers), spoiled, Kind.OPEN) is ErrorCode.MALFORMED


async def test_sessions_that_are_unknown_or_anothers_are_refused_and_not_touched(
    stranger: Stranger, other: Stranger
) -> None:
    session, unknown = await stranger.open(), next(numbers)
    early = Step(1, 1, 0, noise(1))
    other.send(session, early)
    other.send(unknown, early)
    for number, code in ((session, ErrorCode.DENIED), (unknown, ErrorCode.UNKNOWN_SESSION)):
        answer = await other.receive(number)
        assert isinstance(answer, Error)
        assert answer.code is code
    assert await other.refusal(session, Neighbours(9, None, None)) is ErrorCode.UNKNOWN_SESSION
    assert await other.refusal(session, other.request()) is ErrorCode.DENIED
    other.send(session, b"", Kind.CLOSE)
    await other.status()
    assert (await stranger.step(session, early)).last == 1
