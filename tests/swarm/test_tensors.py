"""Hidden states travel bit by bit, and a shape that the bytes do not bear out is refused before anything is made."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol.codec import Reader, uint
from nectar_protocol.errors import MalformedError
from nectar_swarm.tensors import CODES, DTYPES, MAX_BATCH, all_finite, pack_tensor, read_tensor

dtypes = st.sampled_from(sorted(CODES, key=CODES.__getitem__))
shapes = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 9))


def head(code: int, batch: int, tokens: int, width: int) -> bytes:
    return bytes([code]) + uint(batch, 2, "") + uint(tokens, 4, "") + uint(width, 4, "")


def from_bits(data: bytes, dtype: torch.dtype, shape: tuple[int, int, int]) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=dtype).view(shape)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


@given(dtypes, shapes, st.data())
def test_any_bits_come_back_as_they_were(dtype: torch.dtype, shape: tuple[int, int, int], data: st.DataObject) -> None:
    size = shape[0] * shape[1] * shape[2] * dtype.itemsize
    hidden = from_bits(data.draw(st.binary(min_size=size, max_size=size)), dtype, shape)  # infinities and NaNs too
    received = read_tensor(Reader(pack_tensor(hidden)))
    assert (received.dtype, received.shape) == (hidden.dtype, hidden.shape)
    assert bits(received) == bits(hidden)


@pytest.mark.parametrize("dtype", CODES)
def test_the_bytes_are_a_head_and_the_numbers_in_little_endian(dtype: torch.dtype) -> None:
    hidden = torch.tensor([[[1.0, -2.0]]], dtype=dtype)
    numbers = {
        torch.float32: "0000803f000000c0",
        torch.bfloat16: "803f00c0",
        torch.float16: "003c00c0",
    }
    assert pack_tensor(hidden) == head(CODES[dtype], 1, 1, 2) + bytes.fromhex(numbers[dtype])


def test_a_view_is_packed_as_what_it_shows() -> None:
    whole = torch.arange(24, dtype=torch.float32).view(2, 3, 4)
    for view in (whole[:, 1:], whole.transpose(1, 2), whole[:1].expand(3, -1, -1)):
        assert torch.equal(read_tensor(Reader(pack_tensor(view))), view)


def test_what_is_read_may_be_written_to_and_needs_no_gradient() -> None:
    received = read_tensor(Reader(pack_tensor(torch.ones(1, 1, 2, requires_grad=True))))
    received += 1
    assert received.tolist() == [[[2.0, 2.0]]]


def test_another_dtype_is_not_sent() -> None:
    with pytest.raises(KeyError):
        pack_tensor(torch.zeros(1, 1, 1, dtype=torch.float64))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (head(len(DTYPES), 1, 1, 1) + bytes(4), "dtype"),
        (head(0, 0, 1, 1), "shape"),
        (head(0, 1, 0, 1), "shape"),
        (head(0, 1, 1, 0), "shape"),
        (head(0, MAX_BATCH + 1, 1, 1) + bytes(4 * (MAX_BATCH + 1)), "shape"),
        (head(0, 1, 1, 2) + bytes(7), "8 bytes in 7"),
        (head(0, 1, 1, 2) + bytes(9), "8 bytes in 9"),
        (head(1, 1, 1, 2) + bytes(8), "4 bytes in 8"),
        (head(0, MAX_BATCH, 0xFFFFFFFF, 0xFFFFFFFF), "in 0"),
        (head(0, 1, 1, 1)[:-1], "missing"),
        (b"", "missing"),
    ],
)
def test_a_wrong_tensor_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        read_tensor(Reader(data))


@given(st.binary(max_size=60))
def test_random_bytes_raise_nothing_but_malformed(data: bytes) -> None:
    try:
        received = read_tensor(Reader(data))
    except MalformedError:
        return
    assert pack_tensor(received) == data


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_number_that_is_not_finite_is_found_and_large_ones_are_not(dtype: torch.dtype, bad: float) -> None:
    largest = min(torch.finfo(dtype).max, 1e30)
    hidden = torch.full((2, 3, 50), largest, dtype=dtype)
    assert all_finite(hidden)
    hidden[1, 2, 30] = bad
    assert not all_finite(hidden)
    hidden[0, 0, 0] = -bad
    assert not all_finite(hidden)
