"""A peer that serves no blocks: it introduces peers to each other, keeps directory records, and relays."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from nectar_protocol.identity import PeerID

from nectar_swarm.directory import Directory
from nectar_swarm.host import Host, Listen, PeerAddress
from nectar_swarm.keyfile import hold_key, load_or_create_key

RESTART_S = 1.0


async def run_bootstrap(
    key_file: Path,
    listen: Listen,
    initial_peers: Sequence[PeerAddress],
    allowed: frozenset[PeerID] | None,
    stop: asyncio.Event,
    on_ready: Callable[[list[str]], None],
) -> None:
    """Until `stop` is set; p2pd is started again if it ends. Raises SwarmError for what keeps it from running."""
    load_or_create_key(key_file)
    with hold_key(key_file):
        while not stop.is_set():
            host = await Host.start(key_file=key_file, listen=listen)
            try:
                directory = await Directory.join(host, initial_peers, allowed=allowed)
                on_ready([f"{address}/p2p/{host.peer_id}" for address in await host.addresses()])
                ends = [asyncio.create_task(event.wait()) for event in (stop, host.ended)]
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                for end in ends:
                    end.cancel()
                await directory.close()
            finally:
                await host.close()
            if not stop.is_set():
                await asyncio.sleep(RESTART_S)
