"""A download goes on from where it was cut, in the same process or the next, and what is damaged never counts."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nectar_swarm.errors import CheckpointError, DiskError
from nectar_swarm.hub import HubAccess
from nectar_swarm.retries import Retries
from nectar_swarm.source import Source, open_source

from tests.hubserver import REPOSITORY, Fault, HubServer, access

SCRIPT = """
import sys
import time
from nectar_swarm.hub import HubAccess
from nectar_swarm.source import open_source
print(open_source("someone/llama", hub=HubAccess(sys.argv[1])).path(sys.argv[2]))
"""


@pytest.fixture
def source(hub: HubServer) -> Source:
    return open_source(REPOSITORY, hub=access(hub))


@pytest.fixture
def shard(hub: HubServer) -> Path:
    return max((path for path in hub.folder.iterdir() if path.suffix == ".safetensors"), key=lambda p: p.stat().st_size)


def start(hub: HubServer, shard: Path) -> subprocess.Popen[bytes]:
    """A process that fetches a shard."""
    environment = os.environ | {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, hub.url, shard.name], env=environment, stdout=-1)


def test_a_cut_download_goes_on_in_the_same_call(hub: HubServer, source: Source, shard: Path) -> None:
    hub.faults[shard.name] = Fault(3, cut_after=10_000)
    assert source.path(shard.name).read_bytes() == shard.read_bytes()
    assert hub.sent_bytes[shard.name] == shard.stat().st_size
    assert hub.ranges == [(shard.name, f"bytes={start}-") for start in (10_000, 20_000, 30_000)]


def test_a_download_goes_on_after_kill_9(hub: HubServer, source: Source, shard: Path) -> None:
    hub.faults[shard.name] = Fault(cut_after=10_000, stalls=True)
    process = start(hub, shard)
    assert hub.stalled.wait(30)
    part = wait_for_part(shard)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    hub.go_on.set()
    kept = part.stat().st_size
    assert kept == 10_000
    assert source.path(shard.name).read_bytes() == shard.read_bytes()
    assert hub.ranges == [(shard.name, f"bytes={kept}-")]
    assert hub.sent_bytes[shard.name] == shard.stat().st_size


def wait_for_part(shard: Path) -> Path:
    """The partial file, once it has what was sent."""
    limit_s = time.monotonic() + 30
    while time.monotonic() < limit_s:
        for part in Path(os.environ["NECTAR_CACHE"]).glob("hub/files/*.part"):
            if part.stat().st_size == 10_000:
                return part
        time.sleep(0.01)
    raise TimeoutError("no partial file appeared")


def test_two_processes_that_want_one_shard_fetch_it_once(hub: HubServer, source: Source, shard: Path) -> None:
    hub.faults[shard.name] = Fault(cut_after=10_000, stalls=True)
    processes = [start(hub, shard) for _ in range(2)]
    assert hub.stalled.wait(30)
    hub.go_on.set()
    paths = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(paths) == 1
    assert hub.sent_bytes[shard.name] == shard.stat().st_size


def test_a_hub_that_ignores_ranges_is_begun_with_anew(hub: HubServer, source: Source, shard: Path) -> None:
    hub.faults[shard.name], hub.ignores_ranges = Fault(cut_after=10_000), True
    assert source.path(shard.name).read_bytes() == shard.read_bytes()
    assert hub.sent_bytes[shard.name] == 10_000 + shard.stat().st_size


@pytest.mark.parametrize("fault", [Fault(2, damaged=True), Fault(2, 503), Fault(2, 429, {"Retry-After": "0"})])
def test_what_fails_once_is_made_good(hub: HubServer, source: Source, shard: Path, fault: Fault) -> None:
    hub.faults[shard.name] = Fault(1, fault.status, fault.headers, damaged=fault.damaged)
    assert source.path(shard.name).read_bytes() == shard.read_bytes()
    assert hub.requests[shard.name] == 2


def test_a_shard_that_arrives_damaged_twice_is_refused_and_not_kept(
    hub: HubServer, source: Source, shard: Path, nectar_cache: Path
) -> None:
    hub.faults[shard.name] = Fault(99, damaged=True)
    with pytest.raises(CheckpointError, match="arrived damaged, twice"):
        source.path(shard.name)
    assert hub.requests[shard.name] == 2
    assert list((nectar_cache / "hub" / "files").iterdir()) == []


@pytest.mark.parametrize("size", [-1, 0, 1])
def test_a_part_that_is_not_the_files_beginning_is_thrown_away(
    hub: HubServer, source: Source, shard: Path, nectar_cache: Path, size: int
) -> None:
    entry = source.manifest.file(shard.name)
    assert entry is not None
    part = nectar_cache / "hub" / "files" / f"{entry.sha256.hex()}.{entry.size}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(entry.size + size))
    assert source.path(shard.name).read_bytes() == shard.read_bytes()


@pytest.mark.parametrize("cut", [0, 1])
def test_a_damaged_file_of_the_cache_is_unlinked_and_fetched_again(
    hub: HubServer, source: Source, shard: Path, cut: int
) -> None:
    path, data = source.path(shard.name), shard.read_bytes()
    source.release()
    with path.open("rb") as mapped:  # as a running node has it
        os.truncate(path, len(data) - cut) if cut else path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        damaged = mapped.read()
        assert open_source(REPOSITORY, hub=access(hub)).path(shard.name).read_bytes() == data
        mapped.seek(0)
        assert mapped.read() == damaged
    assert hub.requests[shard.name] == 2


def test_tries_are_bounded(hub: HubServer, source: Source, shard: Path) -> None:
    hub.faults[shard.name] = Fault(99, cut_after=0)
    with pytest.raises(CheckpointError, match="hub cannot be reached"):
        source.path(shard.name)
    assert hub.requests[shard.name] == Retries().tries


@pytest.mark.parametrize(("status", "hint"), [(401, "HF_TOKEN"), (403, "HF_TOKEN"), (404, "404"), (410, "410")])
def test_a_refusal_is_not_asked_again(hub: HubServer, source: Source, shard: Path, status: int, hint: str) -> None:
    hub.faults[shard.name] = Fault(99, status)
    with pytest.raises(CheckpointError, match=f"cannot fetch {shard.name}.*{hint}"):
        source.path(shard.name)
    assert hub.requests[shard.name] == 1


def test_waits_grow_to_a_bound_and_heed_the_hub(hub: HubServer, shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("nectar_swarm.retries.time.sleep", waits.append)
    source = open_source(REPOSITORY, hub=HubAccess(hub.url, retries=Retries(6, 1, 5)))
    hub.faults[shard.name] = Fault(5, 503)
    assert source.path(shard.name)
    assert waits == [1, 2, 4, 5, 5]
    source.path(shard.name).unlink()
    source.release()
    hub.faults[shard.name] = Fault(1, 429, {"Retry-After": "3"})
    assert source.path(shard.name)
    assert waits[5:] == [3]


def test_a_full_disk_is_named(
    hub: HubServer, source: Source, shard: Path, nectar_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = source.manifest.file(shard.name)
    assert entry is not None
    part = nectar_cache / "hub" / "files" / f"{entry.sha256.hex()}.{entry.size}.part"
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    with pytest.raises(DiskError, match=r"cannot write in .*No space left.*NECTAR_CACHE"):
        source.path(shard.name)
