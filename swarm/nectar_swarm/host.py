"""This process's place on the network: one p2pd (libp2p) beside us, spoken to through hivemind's P2P.

hivemind's own defaults are corrected here once: an Ed25519 identity, a control socket that other local users cannot
open, no reliance on QUIC, no relaying (`relay.py` is ours), and a p2pd that ends with us and whose own end is noticed.
"""

import asyncio
import contextlib
import errno
import math
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hivemind.p2p import P2P
from hivemind.p2p import PeerID as LibP2PPeerID
from hivemind.p2p.p2p_daemon_bindings.utils import P2PDaemonError, raise_if_failed, read_pbmsg_safe, write_pbmsg
from hivemind.proto import p2pd_pb2 as p2pd
from hivemind.utils.multiaddr import Multiaddr
from nectar_protocol.address import MAX_ADDRESSES, Address, split_multiaddr
from nectar_protocol.errors import ProtocolError
from nectar_protocol.identity import PeerID

from nectar_swarm.errors import AddressInUseError, HostError, UnreachableError
from nectar_swarm.tether import tether

DIAL_TIMEOUT_S = 4.0
STARTUP_TIMEOUT_S = 20.0
STOP_SERVING_S = 1.0

StreamHandler = Callable[[PeerID, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Listen:
    """Where to listen. Port 0 lets the system choose; `announce` replaces what peers are told."""

    host: str = "0.0.0.0"
    port: int = 0
    announce: tuple[str, ...] = ()


class Host:
    """A running p2pd. Made by `Host.start`; ended by `close`, or by p2pd's own end, which sets `ended`."""

    def __init__(self, p2p: P2P, folder: Path) -> None:
        self.p2p = p2p
        self.peer_id = PeerID(p2p.peer_id.to_base58())
        self.ended = asyncio.Event()
        self._folder = folder
        self._watch = asyncio.create_task(self._wait_for_end())

    @classmethod
    async def start(cls, *, key_file: Path | None = None, listen: Listen | None = None) -> "Host":
        """Start p2pd. Without `key_file` the identity is thrown away at the end; without `listen` nobody can dial us.

        Raises AddressInUseError or HostError.
        """
        if listen is not None:
            check_port(listen)
        folder = Path(tempfile.mkdtemp(prefix="nectar-"))  # mode 0700: whoever opens p2pd's socket acts as us
        kind, begun = _private_p2p(folder)
        try:
            p2p = await kind.create(**p2pd_arguments(key_file, listen))
        except BaseException as error:
            for half in begun:
                _close_pipe(half)
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, P2PDaemonError | OSError):
                raise HostError(f"the libp2p daemon did not start: {error}") from error
            raise
        return cls(p2p, folder)

    @property
    def daemon_pid(self) -> int:
        return int(self.p2p._child.pid)

    async def _wait_for_end(self) -> None:
        await self.p2p._child.wait()
        self.ended.set()

    async def addresses(self) -> tuple[Address, ...]:
        """What others can dial, the most useful first: no loopback when there is anything else, TCP only."""
        found = []
        try:
            visible = await self.p2p.get_visible_maddrs(latest=True)
        except ValueError:  # a peer that does not listen has none
            return ()
        for maddr in visible:
            with contextlib.suppress(ProtocolError):
                found.append(split_multiaddr(str(maddr))[0])
        found = sorted(dict.fromkeys(found), key=lambda a: (a.ip.is_loopback, a.ip.version))
        beyond = [address for address in found if not address.ip.is_loopback]
        return tuple((beyond or found)[:MAX_ADDRESSES])

    async def connect(self, peer: PeerID, addresses: Sequence[Address], timeout_s: float = DIAL_TIMEOUT_S) -> None:
        """Make p2pd connect to a peer, if it is not connected. Raises UnreachableError."""
        if self.ended.is_set():
            raise HostError("the libp2p daemon has ended")
        packed = [Multiaddr(str(address)).to_bytes() for address in addresses]
        target = p2pd.ConnectRequest(peer=_peer_bytes(peer), addrs=packed, timeout=math.ceil(timeout_s))
        try:
            async with asyncio.timeout(timeout_s):
                _, _, writer = await self._ask(p2pd.Request(type=p2pd.Request.CONNECT, connect=target))
            writer.close()
        except TimeoutError as error:
            raise UnreachableError(f"{peer} did not answer within {timeout_s:g} s") from error
        except Exception as error:  # hivemind raises a plain Exception among others
            raise UnreachableError(f"cannot reach {peer}: {error}") from error

    async def connection(self, peer: PeerID) -> Address | None:
        """Where the other end of p2pd's connection to a peer is; None if there is no connection."""
        try:
            connected = await self.p2p.list_peers()
        except Exception as error:
            raise HostError(f"the libp2p daemon does not say who is connected: {error}") from error
        for info in connected:
            if info.peer_id == peer:
                for maddr in info.addrs:
                    with contextlib.suppress(ProtocolError):
                        return split_multiaddr(str(maddr))[0]
        return None

    async def open_stream(
        self, peer: PeerID, protocol: str, timeout_s: float = DIAL_TIMEOUT_S
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A raw libp2p stream to a connected peer. Raises UnreachableError."""
        wanted = p2pd.StreamOpenRequest(peer=_peer_bytes(peer), proto=[protocol], timeout=math.ceil(timeout_s))
        try:
            async with asyncio.timeout(timeout_s):
                _, reader, writer = await self._ask(p2pd.Request(type=p2pd.Request.STREAM_OPEN, streamOpen=wanted))
        except TimeoutError as error:
            raise UnreachableError(f"{peer} did not open a stream within {timeout_s:g} s") from error
        except Exception as error:
            raise UnreachableError(f"{peer} does not speak {protocol}: {error}") from error
        return reader, writer

    async def _ask(self, request: Any) -> tuple[Any, asyncio.StreamReader, asyncio.StreamWriter]:
        """p2pd's answer, and the connection to it. One that fails is closed, which hivemind leaves to the collector:
        a peer that makes us dial in vain could use up our files."""
        reader, writer = await self.p2p._client.control.daemon_connector.open_connection()
        try:
            await write_pbmsg(writer, request)
            await read_pbmsg_safe(reader, response := p2pd.Response())
            raise_if_failed(response)
        except BaseException:
            writer.close()
            raise
        return response, reader, writer

    async def serve(self, protocol: str, handler: StreamHandler) -> None:
        """Have `handler(authenticated peer, reader, writer)` called for every stream of this protocol."""

        async def accept(info: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await handler(PeerID(info.peer_id.to_base58()), reader, writer)

        await self.p2p.add_binary_stream_handler(protocol, accept)

    async def stop_serving(self, protocol: str) -> None:
        """Take no more streams of this protocol; it may be served again."""
        if not self.ended.is_set():
            with contextlib.suppress(Exception):  # p2pd ends under us, or hangs
                async with asyncio.timeout(STOP_SERVING_S):
                    await self.p2p.remove_binary_stream_handler(protocol)

    async def close(self) -> None:
        self._watch.cancel()
        await self.p2p.shutdown()
        _close_pipe(self.p2p)
        self.ended.set()
        shutil.rmtree(self._folder, ignore_errors=True)


def _close_pipe(p2p: P2P) -> None:
    """hivemind leaves its daemon's pipe to the collector, which may come after the loop has closed. Ends the daemon."""
    if p2p._child is not None:
        p2p._child._transport.close()


def _private_p2p(folder: Path) -> tuple[Any, list[P2P]]:
    """hivemind's P2P, with its sockets in a folder of ours and a p2pd that dies with us; and those that were begun."""
    begun: list[P2P] = []

    def begin(p2p: P2P) -> None:
        P2P.__init__(p2p)
        begun.append(p2p)

    def command(*arguments: Any, **options: Any) -> list[str]:
        return [*tether(), *P2P._make_process_args(*arguments, **options)]

    changes = {
        "_UNIX_SOCKET_PREFIX": f"/unix{folder}/",
        "_make_process_args": staticmethod(command),
        "__init__": begin,
    }
    return type("PrivateP2P", (P2P,), changes), begun


def p2pd_arguments(key_file: Path | None, listen: Listen | None) -> dict[str, Any]:
    """Arguments of `P2P.create` for a peer that listens (a node) or does not (a client)."""
    arguments: dict[str, Any] = {
        "identity_path": str(key_file) if key_file else None,
        "check_if_identity_free": False,  # hivemind can check RSA keys only
        "auto_nat": False,
        "nat_port_map": False,
        "use_relay": False,
        "startup_timeout": STARTUP_TIMEOUT_S,
        "idle_timeout": 10,
    }
    if listen is None:
        return arguments | {"host_maddrs": None, "no_listen": True, "dht_mode": "client"}
    family = "ip6" if ":" in listen.host else "ip4"
    return arguments | {
        "host_maddrs": [f"/{family}/{listen.host}/tcp/{listen.port}"],
        "announce_maddrs": list(listen.announce) or None,
        "dht_mode": "server",
    }


def _peer_bytes(peer: PeerID) -> bytes:
    return bytes(LibP2PPeerID.from_base58(peer).to_bytes())


def check_port(listen: Listen) -> None:
    """Raise AddressInUseError or HostError unless we could listen there.

    p2pd shares ports between processes (SO_REUSEPORT), so that it would start beside another and steal its callers.
    """
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen.host, listen.port))
            probe.listen(1)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise AddressInUseError(
                    f"port {listen.port} on {listen.host} is in use; choose another with --port"
                ) from error
            raise HostError(f"cannot listen on {listen.host} port {listen.port}: {error.strerror}") from error


def local_ip() -> str:
    """The address of this machine on the network it would use for a far one; loopback without a network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a datagram socket: nothing is sent
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
