"""A file's digest is computed once, and again when the file has changed or the note of it is damaged."""

import hashlib
import os
from pathlib import Path

import pytest
from nectar_swarm import digests
from nectar_swarm.cache import cache_folder
from nectar_swarm.digests import file_sha256
from nectar_swarm.errors import CheckpointError


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose contents were read."""
    seen: list[Path] = []

    def read(path: Path) -> bytes:
        seen.append(path)
        return hashlib.sha256(path.read_bytes()).digest()

    monkeypatch.setattr(digests, "hash_file", read)
    return seen


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"numbers")
    return path


def notes(cache: Path) -> list[Path]:
    return sorted((cache / "digests").iterdir())


@pytest.mark.parametrize("size", [0, 1, digests.CHUNK, digests.CHUNK + 1])
def test_the_digest_is_the_sha256_of_the_contents(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    assert file_sha256(path) == hashlib.sha256(b"x" * size).digest()


def test_a_file_is_not_read_twice(file: Path, reads: list[Path]) -> None:
    assert file_sha256(file) == file_sha256(file)
    assert reads == [file.resolve()]


def test_a_link_shares_the_digest_of_its_target(file: Path, reads: list[Path]) -> None:
    link = file.with_name("link")
    link.symlink_to(file)
    assert file_sha256(link) == file_sha256(file)
    assert len(reads) == 1


def test_a_file_of_another_size_is_read_again(file: Path, reads: list[Path]) -> None:
    before = file_sha256(file)
    file.write_bytes(b"more numbers")
    assert file_sha256(file) != before
    assert len(reads) == 2


def test_a_file_of_the_same_size_and_a_later_time_is_read_again(file: Path, reads: list[Path]) -> None:
    before, stat = file_sha256(file), file.stat()
    file.write_bytes(b"NUMBERS")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert file_sha256(file) != before
    assert len(reads) == 2


def test_a_file_put_in_its_place_with_the_same_size_and_time_is_read_again(file: Path, reads: list[Path]) -> None:
    before, stat = file_sha256(file), file.stat()
    other = file.with_name("other")
    other.write_bytes(b"NUMBERS")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(file)
    assert file_sha256(file) != before
    assert len(reads) == 2


@pytest.mark.parametrize(
    "note", [b"", b"[]", b"1", b"{}", b"\xff", b'{"sha256": "00", "stamp": STAMP}', b'{"sha256": 1, "stamp": STAMP}']
)
def test_a_damaged_note_costs_a_reading_and_is_mended(
    file: Path, reads: list[Path], nectar_cache: Path, note: bytes
) -> None:
    digest = file_sha256(file)
    [path] = notes(nectar_cache)
    stat = file.stat()
    path.write_bytes(note.replace(b"STAMP", str([stat.st_size, stat.st_mtime_ns, stat.st_ino]).encode()))
    assert [file_sha256(file) for _ in range(2)] == [digest, digest]
    assert len(reads) == 2


def test_no_temporary_file_is_left(file: Path, nectar_cache: Path) -> None:
    file_sha256(file)
    file.write_bytes(b"more numbers")
    file_sha256(file)
    assert [path.suffix for path in notes(nectar_cache)] == [".json"]


def test_a_cache_folder_that_cannot_be_written_costs_time_alone(
    file: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NECTAR_CACHE", str(file))
    assert file_sha256(file) == file_sha256(file)
    assert len(reads) == 2


def test_a_file_that_changes_while_it_is_read_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def change(path: Path) -> bytes:
        path.write_bytes(b"still being downloaded")
        return bytes(32)

    monkeypatch.setattr(digests, "hash_file", change)
    with pytest.raises(CheckpointError, match="try again"):
        file_sha256(file)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot read"):
        file_sha256(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="cannot read"):
        file_sha256(tmp_path)


def test_the_cache_folder_is_the_users_unless_told(monkeypatch: pytest.MonkeyPatch, nectar_cache: Path) -> None:
    assert cache_folder() == nectar_cache
    monkeypatch.delenv("NECTAR_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/nectar")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "nectar"
