"""What our links cost: echoes between two processes with a p2pd each, against other ways over the same p2pds.

"link" is ours, one stream for all sessions; "protobuf" hivemind's protobuf streams, "raw" bare libp2p streams read by
exact sizes, both one stream a session. "step" is a link whose both ends also make and read STEPs with tensors, so that
half its time is what a hop adds to a token beyond its computing. All take turns, round by round; figures are medians
over rounds, ratios are taken within a round.

    python -m benchmarks.wire [--quick] [--json]
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import torch
from hivemind.p2p import PeerID as LibP2PPeerID
from hivemind.proto.runtime_pb2 import Tensor
from nectar.loop import new_event_loop
from nectar_protocol.identity import PeerID
from nectar_swarm.frames import Kind
from nectar_swarm.host import Host, Listen
from nectar_swarm.link import Link
from nectar_swarm.messages import Step
from nectar_swarm.peeraddress import PeerAddress
from nectar_swarm.peers import Peers

PAYLOAD = bytes(range(256)) * 32
HIDDEN = torch.arange(2048, dtype=torch.float32).view(1, 1, -1)  # 8 KB, as the payload
SESSIONS = 64
ECHO, PROTOBUF, RAW = Kind.OPEN, "benchmark.protobuf", "benchmark/raw"

Echo = Callable[[], Awaitable[object]]


class Echoing:
    """The other process's handler: what comes goes back, STEPs by way of their tensors."""

    def on_message(self, link: Link, session: int, kind: Kind, payload: bytes) -> None:
        link.send(session, kind, Step.unpack(payload).pack() if kind is Kind.STEP else payload)

    def on_dead(self, peer: PeerID, reason: str) -> None: ...


class Asking:
    """Our handler: who has sent waits in `waiting` under its session's number."""

    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Future[bytes]] = {}

    def on_message(self, link: Link, session: int, kind: Kind, payload: bytes) -> None:
        self.waiting.pop(session).set_result(payload)

    def on_dead(self, peer: PeerID, reason: str) -> None: ...


async def serve() -> None:
    """The process that echoes; prints its address and ends with its standard input."""
    host = await Host.start(listen=Listen("127.0.0.1"))
    peers = Peers(host, Echoing())
    await peers.start()

    async def protobuf(requests: AsyncIterator[Tensor], context: object) -> AsyncIterator[Tensor]:
        async for request in requests:
            yield Tensor(buffer=request.buffer)

    async def raw(peer: PeerID, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                writer.write(await reader.readexactly(len(PAYLOAD)))

    await host.p2p.add_protobuf_handler(PROTOBUF, protobuf, Tensor, stream_input=True, stream_output=True)
    await host.serve(RAW, raw)
    print(f"{(await host.addresses())[0]}/p2p/{host.peer_id}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await peers.close()
    await host.close()


class Bench:
    """Makes, for each way, functions that echo once in a session of their own."""

    def __init__(self, host: Host, server: PeerID, handler: Asking, link: Link) -> None:
        self.host, self.server, self.handler, self.link = host, server, handler, link

    async def make(self, way: str, sessions: int) -> list[Echo]:
        made: dict[str, Callable[[int], Awaitable[Echo]]] = {
            "link": self._link, "step": self._step, "protobuf": self._protobuf, "raw": self._raw
        }  # fmt: skip
        return [await made[way](session) for session in range(1, sessions + 1)]

    def _ask(self, session: int, kind: Kind, payload: Any) -> asyncio.Future[bytes]:
        answer = self.handler.waiting[session] = asyncio.get_running_loop().create_future()
        self.link.send(session, kind, payload)
        return answer

    async def _link(self, session: int) -> Echo:
        return lambda: self._ask(session, ECHO, PAYLOAD)

    async def _step(self, session: int) -> Echo:
        async def echo() -> Step:
            return Step.unpack(await self._ask(session, Kind.STEP, Step(1, 1, 0, HIDDEN).pack()))

        return echo

    async def _protobuf(self, session: int) -> Echo:
        queue: asyncio.Queue[Tensor] = asyncio.Queue()

        async def requests() -> AsyncIterator[Tensor]:
            while True:
                yield await queue.get()

        target = LibP2PPeerID.from_base58(self.server)
        replies = await self.host.p2p.iterate_protobuf_handler(target, PROTOBUF, requests(), Tensor)

        async def echo() -> bytes:
            queue.put_nowait(Tensor(buffer=PAYLOAD))
            return bytes((await anext(replies)).buffer)

        return echo

    async def _raw(self, session: int) -> Echo:
        reader, writer = await self.host.open_stream(self.server, RAW)

        async def echo() -> bytes:
            writer.write(PAYLOAD)
            return await reader.readexactly(len(PAYLOAD))

        return echo


async def measure(echoes: list[Echo], count: int) -> tuple[float, float]:
    """Median time of an echo in ms, and echoes a second, when each session echoes `count` times in a row."""
    times_s: list[float] = []

    async def run(echo: Echo) -> None:
        for _ in range(count):
            begun_s = time.perf_counter()
            await echo()
            times_s.append(time.perf_counter() - begun_s)

    begun_s = time.perf_counter()
    await asyncio.gather(*map(run, echoes))
    elapsed_s = time.perf_counter() - begun_s
    return 1e3 * statistics.median(times_s), len(times_s) / elapsed_s


async def rounds(bench: Bench, rounds: int) -> dict[str, float]:
    """The keys that the benchmark prints."""
    alone: dict[str, list[float]] = {"link": [], "protobuf": [], "raw": [], "step": []}
    together: dict[str, list[float]] = {"link": [], "protobuf": [], "raw": []}
    ones = {way: await bench.make(way, 1) for way in alone}
    many = {way: await bench.make(way, SESSIONS) for way in together}
    for warming in (True, *[False] * rounds):
        for way in alone:
            echo_ms, _ = await measure(ones[way], 150)
            if not warming:
                alone[way].append(echo_ms)
        for way in together:
            _, rate = await measure(many[way], 20)
            if not warming:
                together[way].append(rate)

    def ratio(figures: dict[str, list[float]], one: str, other: str) -> float:
        return round(statistics.median(a / b for a, b in zip(figures[one], figures[other], strict=True)), 3)

    return {
        **{f"{way}_echo_ms": round(statistics.median(times), 3) for way, times in alone.items()},
        "link_to_protobuf": ratio(alone, "link", "protobuf"),
        "raw_to_protobuf": ratio(alone, "raw", "protobuf"),
        "hop_ms": round(statistics.median(alone["step"]) / 2, 3),
        **{f"{way}_{SESSIONS}_sessions_per_s": round(statistics.median(rates)) for way, rates in together.items()},
        f"link_to_protobuf_{SESSIONS}_sessions": ratio(together, "link", "protobuf"),
        f"raw_to_protobuf_{SESSIONS}_sessions": ratio(together, "raw", "protobuf"),
    }


async def compare(address: str, count: int) -> dict[str, float]:
    """Connect to the process that echoes, and measure."""
    server = PeerAddress.parse(address)
    host, handler = await Host.start(), Asking()
    peers = Peers(host, handler)
    await peers.start()
    try:
        bench = Bench(host, server.peer, handler, await peers.connect(server.peer, server.addresses))
        return await rounds(bench, count)
    finally:
        await peers.close()
        await host.close()


def run(count: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.wire", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(compare(address, count))


def main() -> None:
    parser = argparse.ArgumentParser(description="Echo over our links and over hivemind's streams.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="five rounds")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.serve:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(serve())
        return
    results = run(5 if options.quick else options.rounds)
    if options.json:
        print(json.dumps(results))
    else:
        print(*(f"{key:34} {value}" for key, value in results.items()), sep="\n")


if __name__ == "__main__":
    main()
