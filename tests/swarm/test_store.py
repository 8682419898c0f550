"""Below a limit, what was used longest ago makes way, and what anybody uses stays."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nectar_protocol.manifest import FileEntry
from nectar_swarm.errors import DiskError
from nectar_swarm.store import Held, Store

SIZE = 1000
USER = """
import sys
from pathlib import Path
from nectar_protocol.manifest import FileEntry
from nectar_swarm.store import Store
held = Store(Path(sys.argv[1]), None).find(FileEntry("a", int(sys.argv[2]), bytes.fromhex(sys.argv[3])))
print("held", flush=True)
sys.stdin.read()
"""

Get = Callable[[str], Held]


def entry(name: str, size: int = SIZE) -> FileEntry:
    return FileEntry(name, size, hashlib.sha256(contents(name, size)).digest())


def contents(name: str, size: int = SIZE) -> bytes:
    return name.encode().ljust(size)


def put(store: Store, name: str, size: int = SIZE) -> Held:
    """A file, fetched from nowhere."""

    def fetch(path: Path, part: Path) -> None:
        part.write_bytes(contents(name, size))
        part.replace(path)

    return store.get(entry(name, size), fetch)


def names(folder: Path, *candidates: str) -> str:
    """Which of these files are there."""
    return "".join(name for name in candidates if (folder / "files" / entry(name).sha256.hex()).exists())


def age(folder: Path, name: str, seconds: int) -> None:
    os.utime(folder / "locks" / f"{entry(name).sha256.hex()}.use", (seconds, seconds))


@pytest.fixture
def full(tmp_path: Path) -> Store:
    """A store with room for three files that has a, b and c; a was used first."""
    store = Store(tmp_path, 3 * SIZE)
    for seconds, name in enumerate("abc"):
        put(store, name).release()
        age(tmp_path, name, seconds)
    return store


@pytest.fixture
def user(tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Starts a process that uses a file."""
    processes = []

    def start(name: str) -> subprocess.Popen[bytes]:
        digest = entry(name).sha256.hex()
        process = subprocess.Popen([sys.executable, "-c", USER, tmp_path, str(SIZE), digest], stdin=-1, stdout=-1)
        processes.append(process)
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_what_was_used_longest_ago_makes_way(full: Store, tmp_path: Path) -> None:
    held = put(full, "a")  # a last use that is later than when it was fetched
    held.release()
    put(full, "d").release()
    assert names(tmp_path, *"abcd") == "acd"


def test_reading_a_file_is_no_use_of_it(full: Store, tmp_path: Path) -> None:
    (tmp_path / "files" / entry("a").sha256.hex()).read_bytes()
    put(full, "d")
    assert names(tmp_path, *"abcd") == "bcd"


def test_only_as_much_makes_way_as_must(full: Store, tmp_path: Path) -> None:
    put(full, "wide", 2 * SIZE)
    assert names(tmp_path, *"abc") == "c"


def test_a_file_in_use_stays_until_its_process_is_gone_even_by_kill_9(
    full: Store, tmp_path: Path, user: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    process = user("a")
    age(tmp_path, "a", 0)
    put(full, "d").release()
    assert names(tmp_path, *"abcd") == "acd"
    process.send_signal(signal.SIGKILL)
    process.wait()
    age(tmp_path, "a", 0)
    put(full, "e").release()
    assert names(tmp_path, *"acde") == "cde"


def test_what_cannot_fit_beside_what_is_in_use_is_refused_with_a_way_out(full: Store, tmp_path: Path) -> None:
    holds = [put(full, name) for name in "abc"]
    with pytest.raises(DiskError, match=r"d needs .* in use by running nodes and clients: raise it"):
        put(full, "d")
    assert names(tmp_path, *"abc") == "abc"
    holds[1].release()
    put(full, "d")
    assert names(tmp_path, *"abcd") == "acd"


def test_what_never_fits_is_refused_before_anything_makes_way(full: Store, tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"4 files .* limit \(--max-disk\)"):
        full.check_room([entry(name) for name in "defg"])
    full.check_room([entry(name) for name in "def"])
    assert names(tmp_path, *"abc") == "abc"


def test_a_file_that_is_being_fetched_counts_as_if_it_were_whole_and_stays(full: Store, tmp_path: Path) -> None:
    def fetch(path: Path, part: Path) -> None:
        assert part.stat().st_size == 0
        with pytest.raises(DiskError):
            put(Store(tmp_path, 3 * SIZE), "wide", 3 * SIZE)
        put(Store(tmp_path, 3 * SIZE), "e").release()
        part.write_bytes(contents("d"))
        part.replace(path)

    full.get(entry("d"), fetch)
    assert names(tmp_path, *"de") == "de"
    assert sum(path.stat().st_size for path in (tmp_path / "files").iterdir()) <= 3 * SIZE


def test_a_part_that_nobody_fetches_any_more_makes_way(full: Store, tmp_path: Path) -> None:
    part = tmp_path / "files" / f"{entry('z').sha256.hex()}.{SIZE}.part"
    part.write_bytes(b"some")
    put(full, "d")
    assert not part.exists()
    assert names(tmp_path, *"abcd") == "bcd"


def test_what_is_not_the_stores_is_left_alone(full: Store, tmp_path: Path) -> None:
    (tmp_path / "files" / "notes.txt").write_bytes(bytes(10 * SIZE))
    put(full, "d")
    assert (tmp_path / "files" / "notes.txt").exists()


def test_without_a_limit_nothing_is_removed(tmp_path: Path) -> None:
    store = Store(tmp_path, None)
    for name in "abcdefg":
        put(store, name).release()
    assert names(tmp_path, *"abcdefg") == "abcdefg"


def test_a_disk_that_is_too_full_is_told_before_anything_is_fetched(tmp_path: Path) -> None:
    huge = FileEntry("huge", 1 << 60, bytes(32))
    store = Store(tmp_path / "new", None)
    with pytest.raises(DiskError, match=r"more on the disk of .*NECTAR_CACHE"):
        store.check_room([huge])
    with pytest.raises(DiskError, match="huge need"):
        store.get(huge, lambda path, part: pytest.fail("fetched"))


def test_a_file_that_is_removed_stays_for_whoever_has_it_open(full: Store, tmp_path: Path) -> None:
    with (tmp_path / "files" / entry("a").sha256.hex()).open("rb") as file:
        put(full, "d")
        assert names(tmp_path, "a") == ""
        assert file.read() == contents("a")
