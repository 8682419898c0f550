"""Digests of hidden states are those of the bytes that a STEP carries, whatever lies where in memory."""

import pytest
import torch
from nectar_protocol.commitment import digests
from nectar_protocol.errors import MalformedError
from nectar_swarm.tensors import DTYPES, HEAD, pack_tensor
from nectar_swarm.vectors import vector_digests

SALT = bytes(range(32))


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_digests_are_of_the_bytes_that_travel(dtype: torch.dtype) -> None:
    hidden = torch.randn(3, 5, 8).to(dtype)
    for view in (hidden, hidden[:, 1:4], hidden[[2, 0]], hidden.transpose(0, 1)):
        rows, positions, _ = view.shape
        assert vector_digests(SALT, view) == digests(SALT, pack_tensor(view)[HEAD.size :], rows, positions)


def test_a_row_in_a_batch_has_the_digests_that_it_has_alone() -> None:
    hidden = torch.randn(2, 3, 4)
    both = vector_digests(SALT, hidden)
    for row in range(2):
        for position in range(3):
            (alone,) = vector_digests(SALT, hidden[row : row + 1, position : position + 1])
            assert [both[row][position]] == alone


def test_another_salt_gives_other_digests_and_a_short_one_none() -> None:
    hidden = torch.randn(1, 1, 4)
    assert vector_digests(SALT, hidden) != vector_digests(bytes(32), hidden)
    with pytest.raises(MalformedError):
        vector_digests(b"short", hidden)
