"""Rows keep their stretches, and a reorder copies what two rows go on from, and nothing else."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from nectar_node.arena import Arena, Row

BLOCKS, POSITIONS, LENGTH = 2, 64, 8
CPU = torch.device("cpu")
orders = st.integers(1, 6).flatmap(lambda rows: st.tuples(*[st.integers(0, rows - 1)] * rows))


def filled(arena: Arena, rows: list[Row]) -> None:
    """Every position of every row holds a number of its own, in each block."""
    for block in range(BLOCKS):
        for number, row in enumerate(rows):
            slots = torch.arange(row.offset, row.offset + row.length)
            numbers = 1000.0 * block + 10 * number + torch.arange(row.length)
            arena.write(block, slots, numbers.view(-1, 1, 1), -numbers.view(-1, 1, 1))


def pasts(arena: Arena, rows: list[Row]) -> list[list[list[float]]]:
    """What stands in each row: keys and values of each block."""
    tensors = [tensor for block in range(BLOCKS) for tensor in arena.of(block)]
    return [[tensor[row.offset : row.offset + row.length].flatten().tolist() for tensor in tensors] for row in rows]


@given(orders, st.integers(0, LENGTH))
def test_a_reorder_gives_each_row_its_past_and_copies_only_those_that_go_on_twice(
    order: tuple[int, ...], length: int
) -> None:
    arena = Arena(BLOCKS, POSITIONS, CPU)
    rows = arena.reserve(len(order), LENGTH)
    assert rows is not None
    for row in rows:
        row.length = length
    filled(arena, rows)
    before, offsets = pasts(arena, rows), {row.offset for row in rows}
    placed = arena.reorder(rows, order)
    assert pasts(arena, placed) == [before[source] for source in order]
    assert {row.offset for row in placed} == offsets, "every stretch is still somebody's, once"
    copied = [row for row, source in zip(placed, order, strict=True) if row is not rows[source]]
    assert len(copied) == len(order) - len(set(order))
    assert all(row.length == length for row in placed)


def test_a_mere_permutation_touches_no_tensor() -> None:
    arena = Arena(BLOCKS, POSITIONS, CPU)
    rows = arena.reserve(3, LENGTH)
    assert rows is not None
    assert arena.reorder(rows, (2, 0, 1)) == [rows[2], rows[0], rows[1]]
    assert arena.keys == [None] * BLOCKS, "nothing has been written, and nothing was needed"


def test_rows_copied_apart_do_not_see_each_others_new_positions() -> None:
    arena = Arena(BLOCKS, POSITIONS, CPU)
    rows = arena.reserve(2, LENGTH)
    assert rows is not None
    for row in rows:
        row.length = 3
    filled(arena, rows)
    first, second = arena.reorder(rows, (1, 1))
    for row in (first, second):
        row.length = 4
    filled(arena, [first, second])
    one, other = pasts(arena, [first, second])
    assert one[0] == [0, 1, 2, 3]
    assert other[0] == [10, 11, 12, 13]


def test_a_block_takes_the_shape_that_its_family_caches() -> None:
    arena = Arena(BLOCKS, POSITIONS, CPU)
    slots = torch.tensor([5, 6])
    arena.write(0, slots, torch.ones(2, 1, 24), torch.ones(2, 1, 16))  # latent attention: values of another size
    arena.write(1, slots, torch.ones(2, 4, 16, dtype=torch.bfloat16), torch.ones(2, 4, 16, dtype=torch.bfloat16))
    assert [tuple(tensor.shape) for tensor in arena.of(0)] == [(POSITIONS, 1, 24), (POSITIONS, 1, 16)]
    assert [tensor.dtype for tensor in arena.of(1)] == [torch.bfloat16] * 2


def test_rows_that_do_not_fit_together_take_nothing() -> None:
    arena = Arena(BLOCKS, 20, CPU)
    assert arena.reserve(3, 8) is None
    assert arena.extents.free == 20
    rows = arena.reserve(2, 8)
    assert rows is not None
    arena.release(rows, 8)
    assert arena.extents.free == 20
