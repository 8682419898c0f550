"""A peer that serves no blocks: it introduces peers to each other and keeps directory records.

Its p2pd also offers libp2p's circuit relay, as that of every node does.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from nectar_protocol.identity import PeerID

from nectar_swarm.directory import Directory
from nectar_swarm.errors import SwarmError
from nectar_swarm.host import Host, Listen, PeerAddress
from nectar_swarm.keyfile import hold_key, load_or_create_key
from nectar_swarm.waiting import first_of

RESTART_S = 1.0

log = logging.getLogger(__name__)


async def run_bootstrap(
    key_file: Path,
    listen: Listen,
    initial_peers: Sequence[PeerAddress],
    allowed: frozenset[PeerID] | None,
    stop: asyncio.Event,
    on_ready: Callable[[list[str]], None],
) -> None:
    """Until `stop` is set; p2pd is started again if it ends. Raises SwarmError for what keeps it from starting."""
    identity = load_or_create_key(key_file)
    allowed = None if allowed is None else allowed | {identity.peer_id}
    started = False
    with hold_key(key_file):
        while not stop.is_set():
            try:
                host = await Host.start(key_file=key_file, listen=listen)
                try:
                    directory = await Directory.join(host, initial_peers, alone=started, allowed=allowed)
                    try:
                        addresses = await host.addresses()
                        if not listen.port and addresses:
                            listen = replace(listen, port=addresses[0].port)
                        on_ready([f"{address}/p2p/{host.peer_id}" for address in addresses])
                        started = True
                        await first_of(stop.wait(), host.ended.wait())
                    finally:
                        await directory.close()
                finally:
                    await host.close()
            except SwarmError as error:
                if not started:
                    raise
                log.warning("cannot come back yet: %s", error)
            if not stop.is_set():
                log.warning("starting the libp2p daemon again")
                await first_of(stop.wait(), timeout_s=RESTART_S)
