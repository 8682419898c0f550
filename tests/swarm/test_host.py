"""A p2pd of our own: its identity is the key's, its socket is private, and its end is noticed."""

import asyncio
import gc
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psutil
import pytest
from nectar_protocol.errors import MalformedError, ProtocolError
from nectar_protocol.identity import parse_peer_id
from nectar_swarm.errors import AddressInUseError, HostError, UnreachableError
from nectar_swarm.host import Host, Listen, check_port, local_ip
from nectar_swarm.keyfile import create_key
from nectar_swarm.peeraddress import PeerAddress
from nectar_swarm.tether import APART, TIED, tether

StartHost = Callable[..., Awaitable[Host]]

HANGS_S = 60.0  # a test that waits so long has failed
PEER = "12D3KooWPQN2nxsbvcYhEFYhpiVLTYFM1vQxtaGJeWQSxEgBnbj2"


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        yield listener.getsockname()[1]


async def test_the_peer_id_is_that_of_the_key(start_host: StartHost, tmp_path: Path) -> None:
    identity = create_key(tmp_path / "node.key")
    host = await start_host(key_file=tmp_path / "node.key")
    assert host.peer_id == identity.peer_id
    assert parse_peer_id(host.peer_id) == identity.public


async def test_without_a_key_the_identity_is_new_and_ed25519(start_host: StartHost) -> None:
    hosts = [await start_host() for _ in range(2)]
    assert len({parse_peer_id(host.peer_id) for host in hosts}) == 2


async def test_the_control_sockets_lie_in_a_private_folder_that_goes_at_the_end(start_host: StartHost) -> None:
    host = await start_host()
    folder = Path(host.p2p._daemon_listen_maddr["unix"]).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert Path(host.p2p._client_listen_maddr["unix"]).parent == folder
    assert any(stat.S_ISSOCK(path.stat().st_mode) for path in folder.iterdir())
    await host.close()
    assert not folder.exists()


async def test_a_dial_in_vain_leaves_no_file_open(start_host: StartHost) -> None:
    host = await start_host()
    nobody = PeerAddress.parse(f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}")
    before = psutil.Process().num_fds()
    for _ in range(3):
        with pytest.raises(UnreachableError):
            await host.connect(nobody.peer, nobody.addresses)
        with pytest.raises(UnreachableError):
            await host.open_stream(nobody.peer, "nectar/wire")
    await asyncio.sleep(0)  # a closed transport ends in the next turn
    assert psutil.Process().num_fds() == before


async def test_close_ends_the_p2pd(start_host: StartHost) -> None:
    host = await start_host()
    pid = host.daemon_pid
    await host.close()
    assert host.ended.is_set()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_the_p2pds_own_end_is_noticed(start_host: StartHost) -> None:
    host = await start_host()
    assert not host.ended.is_set()
    os.kill(host.daemon_pid, signal.SIGKILL)
    await host.ended.wait()
    with pytest.raises(HostError, match="ended"):
        await host.connect(host.peer_id, ())
    with pytest.raises(UnreachableError):
        await host.open_stream(host.peer_id, "nectar/nothing")
    await host.close()


@pytest.mark.skipif(TIED[0] not in tether(), reason="needs util-linux's setpriv")
def test_the_p2pd_dies_with_us_even_if_it_cannot_see_our_end() -> None:
    started = """
import asyncio
from nectar_swarm.host import Host

async def run():
    print((await Host.start()).daemon_pid, flush=True)
    await asyncio.sleep(3600)

asyncio.run(run())
"""
    with subprocess.Popen([sys.executable, "-c", started], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        p2pd = psutil.Process(int(parent.stdout.readline()))
        p2pd.suspend()  # so that it does nothing by itself
        parent.kill()
    _, left = psutil.wait_procs([p2pd], HANGS_S)
    for process in left:
        process.kill()
    assert not left


async def test_without_those_commands_a_p2pd_starts_too(start_host: StartHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nectar_swarm.tether._works", lambda *command: False)
    monkeypatch.setattr("nectar_swarm.host.tether", tether.__wrapped__)
    assert tether.__wrapped__() == APART
    assert os.getsid((await start_host()).daemon_pid) != os.getsid(0)


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_p2pd_that_was_only_begun_is_ended_and_leaves_no_pipe(
    start_host: StartHost, monkeypatch: pytest.MonkeyPatch, cancelled: bool
) -> None:
    monkeypatch.setattr("nectar_swarm.host.STARTUP_TIMEOUT_S", 60.0 if cancelled else 1e-6)
    before = set(psutil.Process().children(recursive=True))
    starting = asyncio.ensure_future(start_host())
    while not (begun := set(psutil.Process().children(recursive=True)) - before) and not starting.done():
        await asyncio.sleep(0)
    if cancelled:
        starting.cancel()
    with pytest.raises(asyncio.CancelledError if cancelled else HostError):
        await starting
    gc.collect()  # a pipe that was left would warn now, and warnings are errors
    await asyncio.to_thread(psutil.wait_procs, list(begun), HANGS_S)
    assert not any(process.is_running() for process in begun)


async def test_the_terminals_signals_do_not_reach_p2pd(start_host: StartHost) -> None:
    assert os.getsid((await start_host()).daemon_pid) != os.getsid(0)


async def test_a_host_can_be_dialled_where_it_says(start_host: StartHost) -> None:
    one, other = await start_host(), await start_host(listen=None)
    [address] = await one.addresses()
    assert str(address.ip) == "127.0.0.1"
    await other.connect(one.peer_id, [address])
    assert await other.addresses() == ()


async def test_announced_addresses_replace_those_of_the_interfaces(start_host: StartHost) -> None:
    host = await start_host(listen=Listen("127.0.0.1", announce=("/ip4/192.0.2.7/tcp/4001",)))
    assert [str(address) for address in await host.addresses()] == ["/ip4/192.0.2.7/tcp/4001"]


async def test_a_chosen_port_is_the_one(start_host: StartHost) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    host = await start_host(listen=Listen("127.0.0.1", port))
    assert [address.port for address in await host.addresses()] == [port]
    with pytest.raises(AddressInUseError):
        await start_host(listen=Listen("127.0.0.1", port))


async def test_a_port_in_use_is_refused_with_the_cure(start_host: StartHost, taken: int) -> None:
    with pytest.raises(AddressInUseError, match=f"port {taken} on 127.0.0.1 is in use; choose another with --port"):
        await start_host(listen=Listen("127.0.0.1", taken))


def test_an_address_of_another_machine_cannot_be_listened_on() -> None:
    with pytest.raises(HostError, match=r"cannot listen on 192\.0\.2\.1"):
        check_port(Listen("192.0.2.1", 0))


async def test_a_p2pd_that_does_not_start_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    key = tmp_path / "damaged.key"
    key.write_bytes(b"no key")
    with pytest.raises(HostError, match="did not start"):
        await Host.start(key_file=key, listen=Listen("127.0.0.1"))
    assert list(tmp_path.iterdir()) == [key]


def test_a_peer_address_reads_back_as_it_is_written() -> None:
    for text in (f"/ip4/192.0.2.1/tcp/31330/p2p/{PEER}", f"/ip6/2001:db8::1/tcp/1/p2p/{PEER}"):
        address = PeerAddress.parse(text)
        assert (address.peer, str(address)) == (PEER, text)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("/ip4/192.0.2.1/tcp/31330", ProtocolError),
        ("192.0.2.1:31330", MalformedError),
        ("", MalformedError),
        ("/ip4/192.0.2.1/tcp/31330/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", ProtocolError),
    ],
)
def test_what_names_no_peer_and_address_is_refused(text: str, error: type[ProtocolError]) -> None:
    with pytest.raises(error):
        PeerAddress.parse(text)


def test_the_local_address_is_one_of_ours() -> None:
    check_port(Listen(local_ip()))
