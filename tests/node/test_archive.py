"""What a node keeps: bounded in memory and on disk, given back whole, never dropped without a word."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nectar_node.archive import Archive, Kept, Record
from nectar_node.errors import FullError, RecordError

TOTAL, MEMORY = 4000, 400
SIZE = 100  # bytes of each tensor
FOREVER_S, HANGS_S = 3600.0, 60.0


def numbers(seed: int, size: int = SIZE) -> torch.Tensor:
    return torch.arange(seed, seed + size // 4, dtype=torch.float32).view(1, -1, 1)


def opened(archive: Archive, expected_bytes: int) -> Record:
    record = archive.open(expected_bytes)
    assert record is not None
    return record


@pytest.fixture
def archive() -> Iterator[Archive]:
    archive = Archive(TOTAL, MEMORY, FOREVER_S)
    yield archive
    archive.close()


def folder(archive: Archive) -> Path:
    return opened(archive, 0).path.parent


def in_memory(kept: list[Kept]) -> list[bool]:
    return [one.tensor is not None for one in kept]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 60)), max_size=30))
def test_everything_comes_back_and_memory_is_bounded(came: list[tuple[int, int]]) -> None:
    archive = Archive(1 << 20, MEMORY)
    records = [opened(archive, 1000) for _ in range(3)]
    tensors = [(which, numbers(at, 4 * size)) for at, (which, size) in enumerate(came)]
    sent = [(records[which].keep(tensor), tensor) for which, tensor in tensors]
    for one, tensor in sent:
        assert torch.equal(one.load(), tensor)
    assert archive.held_bytes <= MEMORY
    assert archive.held_bytes == sum(tensor.nbytes for one, tensor in sent if one.tensor is not None)
    archive.close()


def test_the_oldest_goes_to_disk_whosever_it_is_and_the_newest_stays(archive: Archive) -> None:
    first, second = opened(archive, 1000), opened(archive, 1000)
    kept = [(first if at % 2 else second).keep(numbers(at)) for at in range(6)]
    assert in_memory(kept) == [False, False, True, True, True, True]
    assert sorted(path.stat().st_size for path in folder(archive).iterdir()) == [SIZE, SIZE]
    assert all(torch.equal(one.load(), numbers(at)) for at, one in enumerate(kept))
    assert in_memory(kept) == [False, False, True, True, True, True], "reading brings nothing back"


def test_one_tensor_larger_than_the_memory_is_kept_until_the_next_comes(archive: Archive) -> None:
    record = opened(archive, 1000)
    big = record.keep(numbers(0, 2 * MEMORY))
    assert archive.held_bytes == 2 * MEMORY
    small = record.keep(numbers(1))
    assert in_memory([big, small]) == [False, True]
    assert torch.equal(big.load(), numbers(0, 2 * MEMORY))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_was_written_out_is_bitwise_what_it_was(archive: Archive, dtype: torch.dtype) -> None:
    record = opened(archive, 1000)
    tensor = torch.randn(2, 6, 5)[:, ::2].to(dtype)  # not in one piece
    kept = record.keep(tensor)
    kept.spill()
    assert kept.tensor is None
    again = kept.load()
    assert (again.dtype, again.shape) == (dtype, tensor.shape)
    assert torch.equal(again, tensor)


# Room


def test_room_is_reserved_when_a_session_opens_and_refused_when_there_is_none(archive: Archive) -> None:
    first = opened(archive, 3000)
    assert archive.open(1001) is None
    opened(archive, 1000)
    assert archive.free_bytes == 0
    assert archive.open(1) is None
    for at in range(30):
        first.keep(numbers(at))
    assert archive.free_bytes == 0


def test_a_session_that_outgrows_its_reservation_takes_more_while_there_is_any(archive: Archive) -> None:
    record = opened(archive, SIZE)
    kept = [record.keep(numbers(at)) for at in range(TOTAL // SIZE)]
    assert archive.free_bytes == 0
    with pytest.raises(FullError, match="no more room"):
        record.keep(numbers(99))
    assert record.used_bytes == record.reserved_bytes == TOTAL
    assert all(torch.equal(one.load(), numbers(at)) for at, one in enumerate(kept)), "what was kept stays"


def test_a_close_gives_back_what_was_only_reserved(archive: Archive) -> None:
    record = opened(archive, 3000)
    kept = record.keep(numbers(0))

    async def close() -> None:
        record.close()

    asyncio.run(close())
    assert archive.free_bytes == TOTAL - SIZE
    assert archive.held_bytes == SIZE
    assert torch.equal(kept.load(), numbers(0)), "for two minutes"


# Time


async def test_after_its_time_a_record_is_gone_from_memory_and_disk(archive: Archive) -> None:
    archive._retention_s = 0.0
    record, other = opened(archive, 1000), opened(archive, 1000)
    kept = [record.keep(numbers(at)) for at in range(6)]
    staying = other.keep(numbers(7))
    tensor = weakref.ref(kept[-1].tensor)
    assert list(folder(archive).iterdir())
    record.close()
    del record, kept
    async with asyncio.timeout(HANGS_S):
        while archive.free_bytes != TOTAL - 1000:
            await asyncio.sleep(0)
    gc.collect()
    assert tensor() is None
    assert archive.held_bytes == SIZE
    assert not list(folder(archive).iterdir())
    assert torch.equal(staying.load(), numbers(7))


async def test_a_session_that_kept_nothing_leaves_nothing_behind(archive: Archive) -> None:
    record = opened(archive, 1000)
    gone = weakref.ref(record)
    record.close()
    del record
    gc.collect()
    assert gone() is None, "or opening and closing would fill the memory"
    assert archive.free_bytes == TOTAL


async def test_a_closed_archive_leaves_no_files_and_its_timers_do_no_harm() -> None:
    archive = Archive(TOTAL, MEMORY, 0.0)
    record = opened(archive, 1000)
    for at in range(6):
        record.keep(numbers(at))
    files = record.path.parent
    record.close()
    archive.close()
    assert not files.exists()
    async with asyncio.timeout(HANGS_S):
        while archive.held_bytes:
            await asyncio.sleep(0)


# Disks


def break_disk(archive: Archive) -> Path:
    """Nothing can be written to the archive's folder, nor read from it."""
    place = folder(archive)
    hidden = place.with_name(place.name + "-away")
    place.rename(hidden)
    return hidden


def test_a_disk_that_cannot_be_written_refuses_what_comes_and_keeps_what_has_come(
    archive: Archive, caplog: pytest.LogCaptureFixture
) -> None:
    record = opened(archive, 1000)
    kept = [record.keep(numbers(at)) for at in range(4)]
    hidden = break_disk(archive)
    for _ in range(3):
        with pytest.raises(FullError, match="cannot write"):
            record.keep(numbers(4))
    assert "cannot write" in caplog.text
    assert archive.held_bytes == MEMORY, "memory is bounded all the same"
    assert all(torch.equal(one.load(), numbers(at)) for at, one in enumerate(kept))
    assert archive.open(SIZE) is None, "what would not fit into memory is not promised"
    hidden.rename(record.path.parent)
    late = record.keep(numbers(4))
    assert all(torch.equal(one.load(), numbers(at)) for at, one in enumerate([*kept, late]))
    opened(archive, SIZE)


def test_with_a_broken_disk_sessions_that_fit_into_memory_are_still_taken(archive: Archive) -> None:
    record, small = opened(archive, 1000), opened(archive, SIZE)
    break_disk(archive)
    small.keep(numbers(0))
    for at in range(3):
        record.keep(numbers(at))
    with pytest.raises(FullError):
        record.keep(numbers(4))
    archive._forget(next(iter(small.in_memory)))  # as when its time is over
    assert archive.open(SIZE + 1) is None
    opened(archive, SIZE)


def test_what_cannot_be_read_back_is_said(archive: Archive) -> None:
    record = opened(archive, 1000)
    kept = record.keep(numbers(0))
    kept.spill()
    hidden = break_disk(archive)
    with pytest.raises(RecordError, match="cannot read"):
        kept.load()
    hidden.rename(record.path.parent)
    with record.path.open("r+b") as file:
        file.truncate(SIZE - 1)
    with pytest.raises(RecordError, match="cut short"):
        kept.load()
