"""One link between two p2pds: sessions keep their order, bulk holds nobody back, and versions are agreed on."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from nectar_swarm import backlog, outbox
from nectar_swarm import link as link_module
from nectar_swarm.errors import UnreachableError, WireError
from nectar_swarm.frames import MAX_FRAME, Kind, encode
from nectar_swarm.link import Link
from nectar_swarm.messages import Hello, Ping

Join = Callable[..., Awaitable[Any]]
Eventually = Callable[[Callable[[], object]], Awaitable[None]]


def received(party: Any, session: int) -> list[bytes]:
    return [payload for _, number, _, payload in party.handler.messages if number == session]


async def test_a_sessions_messages_stay_in_order_though_long_and_short_ones_mix(
    join: Join, eventually: Eventually
) -> None:
    one, other = await join(), await join()
    link, chance = await one.connect(other), random.Random(1)
    sent: dict[int, list[bytes]] = {session: [] for session in range(1, 5)}
    for number in range(120):
        session = chance.randrange(1, 5)
        size = chance.choice([0, 10, 1000, MAX_FRAME, MAX_FRAME + 1, 5 * MAX_FRAME])
        sent[session].append(number.to_bytes(2, "big") + bytes(size))
        link.send(session, Kind.STEP, sent[session][-1])
        if number % 7 == 0:
            await asyncio.sleep(0)
    await eventually(lambda: len(other.handler.messages) == 120)
    assert {session: received(other, session) for session in sent} == sent


async def test_both_directions_carry_at_once(join: Join, eventually: Eventually) -> None:
    one, other = await join(), await join()
    link = await one.connect(other)
    other.handler.reply = lambda back, session, kind, payload: back.send(session, kind, payload)
    sent = [bytes([number]) * (number * 10_000) for number in range(20)]
    for payload in sent:
        link.send(9, Kind.STEP, payload)
    await eventually(lambda: len(one.handler.messages) == len(sent))
    assert received(one, 9) == sent


async def test_bulk_of_one_session_holds_back_no_short_message_of_another(join: Join, eventually: Eventually) -> None:
    one, other = await join(), await join()
    link = await one.connect(other)
    bulk = bytes(200 * MAX_FRAME)
    link.send(1, Kind.STEP, bulk)
    await asyncio.sleep(0)  # the bulk is on its way
    for _ in range(50):
        link.send(2, Kind.STEP, b"short")
    await eventually(lambda: len(other.handler.messages) == 51)
    assert [session for _, session, _, _ in other.handler.messages] == [2] * 50 + [1]
    assert received(other, 1) == [bulk]


async def test_bulk_of_several_sessions_takes_turns(join: Join, eventually: Eventually) -> None:
    one, other = await join(), await join()
    link = await one.connect(other)
    link.send(1, Kind.STEP, bytes(120 * MAX_FRAME))
    link.send(2, Kind.STEP, bytes(10 * MAX_FRAME))
    await eventually(lambda: len(other.handler.messages) == 2)
    assert [session for _, session, _, _ in other.handler.messages] == [2, 1]


async def test_a_flood_of_short_messages_leaves_others_their_turn(join: Join, eventually: Eventually) -> None:
    one, other = await join(), await join()
    link, loop, turns = await one.connect(other), asyncio.get_running_loop(), [0]
    other.handler.reply = lambda *message: turns.__setitem__(-1, turns[-1] + 1)

    def count() -> None:
        turns.append(0)
        if sum(turns) < 5000:
            loop.call_soon(count)

    count()
    for number in range(5000):
        link.send(number, Kind.ASK)
    await eventually(lambda: sum(turns) == 5000)
    assert [number for _, number, _, _ in other.handler.messages] == list(range(5000))
    # Between two counts the end of one turn and the beginning of the next may lie.
    assert max(turns) <= 2 * link_module.MAX_PER_TURN


async def test_pings_are_answered_and_the_round_trip_measured(join: Join, eventually: Eventually) -> None:
    one, other = await join(busy_ms=lambda: 77), await join()
    link = await one.connect(other)
    await link.measured.wait()
    assert link.rtt_s is not None
    assert 0 <= link.rtt_s < 30
    assert other.peers.link(one.id).busy_ms == 77
    assert not one.handler.messages
    assert not other.handler.messages


async def test_idle_links_live_on_by_heartbeats(join: Join, eventually: Eventually) -> None:
    one, other = await join(), await join()
    link = await one.connect(other)
    before = link.received_bytes
    await eventually(lambda: link.received_bytes > before + 200)
    assert one.peers.link(other.id) is link
    assert not one.handler.deaths


async def test_the_delay_seam_delays_and_keeps_the_order(join: Join, eventually: Eventually) -> None:
    one, other = await join(delay_s=0.2), await join()
    loop = asyncio.get_running_loop()
    link = await one.connect(other)
    begun = loop.time()
    for number in range(30):
        link.send(1, Kind.STEP, bytes([number]) + bytes(MAX_FRAME if number % 3 == 0 else 0))
    await eventually(lambda: len(other.handler.messages) == 30)
    assert loop.time() - begun >= 0.19  # a delay is a lower bound on any machine, but for what timers were late
    assert [payload[0] for payload in received(other, 1)] == list(range(30))


async def test_what_was_sent_before_the_end_arrives(join: Join, eventually: Eventually) -> None:
    one, other = await join(), await join()
    link = await one.connect(other)
    # Both first pings are answered: bytes that meet a closed stream make libp2p reset it, and cut off what was sent.
    await link.measured.wait()
    await eventually(lambda: other.peers.link(one.id).measured.is_set())
    link.send(1, Kind.CLOSE)
    link.close()
    await eventually(lambda: other.handler.deaths)
    assert [kind for _, _, kind, _ in other.handler.messages] == [Kind.CLOSE]


async def test_who_waits_for_a_clear_link_sends_more_than_it_would_hold(
    join: Join, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "CROWDED", 256 << 10)
    monkeypatch.setattr(backlog, "MAX_BACKLOG", 1 << 20)
    one, other = await join(), await join()
    link = await other.connect(one)
    left = list(range(24))

    def pump() -> None:
        while left:
            if link.crowded:
                link.when_clear(pump)
                return
            link.send(1, Kind.STEP, bytes([left.pop(0)]) * (300 << 10))

    pump()
    assert left  # it did not all go at once
    await eventually(lambda: len(one.handler.messages) == 24)
    assert [payload[0] for *_, payload in one.handler.messages] == list(range(24))
    assert not link.crowded


async def test_a_closed_link_drops_what_is_sent(join: Join, eventually: Eventually) -> None:
    one, other = await join(), await join()
    link = await one.connect(other)
    link.close()
    link.send(1, Kind.STEP, b"late")
    link.send(1, Kind.STEP, bytes(3 * MAX_FRAME))
    await eventually(lambda: other.handler.deaths)
    assert not other.handler.messages


async def test_a_peer_that_reads_nothing_loses_its_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MAX_BACKLOG", 8 << 20)
    async with deaf_peer() as link:
        for _ in range(32):
            link.send(1, Kind.STEP, bytes(1 << 20))
            await asyncio.sleep(0)
        with pytest.raises(UnreachableError, match="reads nothing"):
            await link.serve(ignore)
        assert link.backlog_bytes == 0


async def test_short_messages_count_as_well_as_long_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MAX_BACKLOG", 8 << 20)
    async with deaf_peer() as link:
        for _ in range(320):
            link.send(1, Kind.STEP, bytes(100 << 10))
        with pytest.raises(UnreachableError, match="reads nothing"):
            await link.serve(ignore)


async def test_what_has_come_of_unfinished_messages_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MAX_BACKLOG", 1 << 20)
    link, sink = link_that_hears(HELLO)
    await link.greet()
    frames = encode(1, Kind.STEP, bytes(4 << 20))
    for number in range(8):
        assert link.backlog_bytes == number * MAX_FRAME
        link.data_received(next(frames))
    assert not sink.closed
    link.data_received(next(frames))
    assert sink.closed
    with pytest.raises(UnreachableError):
        await link.serve(ignore)


# Against a peer that speaks byte by byte

PEER: Any = "12D3KooWPQN2nxsbvcYhEFYhpiVLTYFM1vQxtaGJeWQSxEgBnbj2"
HELLO = b"".join(encode(0, Kind.HELLO, Hello(1, 3).pack()))


def ignore(link: Link, session: int, kind: Kind, payload: bytes) -> None: ...


@asynccontextmanager
async def deaf_peer() -> AsyncIterator[Link]:
    """A link to a peer that reads nothing."""
    writers: list[asyncio.StreamWriter] = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await asyncio.sleep(3600)

    async with await asyncio.start_server(keep, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        link = Link(PEER, reader, writer)
        greeting = asyncio.create_task(link.greet())
        await asyncio.sleep(0)  # it has taken the transport over
        yield link
        greeting.cancel()
        link.abort()
        for waiting in writers:
            waiting.close()


class Sink:
    """A writer whose transport takes everything."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed, self.transport = False, self

    @property
    def data(self) -> bytes:
        return b"".join(self.writes)

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None: ...

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close


def link_that_hears(data: bytes) -> tuple[Link, Sink]:
    """A link to whose reader this has come, and nothing else will."""
    reader, sink = asyncio.StreamReader(), Sink()
    if data:
        reader.feed_data(data)
    else:
        reader.feed_eof()
    return Link(PEER, reader, sink), sink  # type: ignore[arg-type]


async def test_the_first_short_message_of_a_turn_leaves_at_once_and_the_others_together() -> None:
    link, sink = link_that_hears(b"")
    for number in range(64):
        link.send(number, Kind.STEP, b"short")
    assert len(sink.writes) == 1
    await asyncio.sleep(0)
    assert [data.count(b"short") for data in sink.writes] == [1, 63]


async def test_answers_to_what_came_together_leave_together() -> None:
    link, sink = link_that_hears(HELLO)
    await link.greet()
    serving = asyncio.create_task(link.serve(Link.send))
    await asyncio.sleep(0)
    del sink.writes[:]
    link.data_received(b"".join(frame for session in range(9) for frame in encode(session, Kind.STEP, b"short")))
    assert [data.count(b"short") for data in sink.writes] == [9]
    link.eof_received()
    await serving


async def test_nothing_is_handed_on_after_an_abort() -> None:
    link, _ = link_that_hears(HELLO)
    await link.greet()
    heard: list[int] = []

    def give_up(link: Link, session: int, kind: Kind, payload: bytes) -> None:
        heard.append(session)
        link.abort()

    serving = asyncio.create_task(link.serve(give_up))
    await asyncio.sleep(0)
    link.data_received(b"".join(frame for session in range(9) for frame in encode(session, Kind.STEP, b"short")))
    await serving
    assert heard == [0]


async def test_what_a_handler_raises_ends_the_link_and_comes_out() -> None:
    link, sink = link_that_hears(HELLO)
    await link.greet()

    def fail(link: Link, session: int, kind: Kind, payload: bytes) -> None:
        raise ZeroDivisionError

    serving = asyncio.create_task(link.serve(fail))
    await asyncio.sleep(0)
    link.data_received(b"".join(encode(1, Kind.STEP, b"short")))
    with pytest.raises(ZeroDivisionError):
        await serving
    assert sink.closed


@pytest.mark.parametrize(("newest", "version"), [(1, 1), (2, 2), (3, 3), (65535, 3)])
async def test_the_newest_version_that_both_speak_is_used(newest: int, version: int) -> None:
    link, sink = link_that_hears(b"".join(encode(0, Kind.HELLO, Hello(1, newest).pack())))
    await link.greet()
    assert link.version == version
    assert sink.data == HELLO


async def test_a_later_greeting_may_be_longer() -> None:
    link, _ = link_that_hears(b"".join(encode(0, Kind.HELLO, Hello(1, 4).pack() + b"features")))
    await link.greet()
    assert link.version == 3


@pytest.mark.parametrize(("oldest", "newest"), [(4, 4), (4, 9), (0, 0), (4, 1)])
async def test_a_peer_without_a_common_version_is_refused_with_who_must_upgrade(oldest: int, newest: int) -> None:
    link, sink = link_that_hears(b"".join(encode(0, Kind.HELLO, Hello(oldest, newest).pack())))
    with pytest.raises(WireError, match="upgraded"):
        await link.greet()
    link.close()
    assert sink.data == HELLO  # so that it can tell its own side the same


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "without a greeting"),
        (b"".join(encode(0, Kind.STEP, b"")), "instead of HELLO"),
        (b"".join(encode(0, Kind.HELLO, b"\0")), "missing"),
        (b"GET / HTTP/1.1\r\n\r\n", "at most"),
    ],
)
async def test_who_does_not_greet_is_refused(data: bytes, message: str) -> None:
    link, _ = link_that_hears(data)
    with pytest.raises(WireError, match=message):
        await link.greet()


async def test_what_comes_with_the_greeting_or_behind_it_is_handed_on_in_order() -> None:
    link, _ = link_that_hears(HELLO + b"".join(encode(5, Kind.STEP, b"early")))
    await link.greet()
    link.data_received(b"".join(encode(6, Kind.STEP, b"later")))
    link.eof_received()
    heard: list[Any] = []
    await link.serve(lambda *message: heard.append(message[1:]))
    assert heard == [(5, Kind.STEP, b"early"), (6, Kind.STEP, b"later")]


@pytest.mark.parametrize("kind", [Kind.PING, Kind.PONG])
async def test_a_malformed_heartbeat_breaks_the_protocol(kind: Kind) -> None:
    link, _ = link_that_hears(b"".join(encode(0, kind, b"short")))
    with pytest.raises(WireError):
        await link.greet()


async def test_a_ping_comes_back_as_it_was_behind_our_greeting() -> None:
    ping = Ping(123, 45).pack()
    link, sink = link_that_hears(b"".join(encode(0, Kind.PING, ping)) + HELLO)
    await link.greet()
    assert sink.data == HELLO + b"".join(encode(0, Kind.PONG, ping))
    assert link.busy_ms == 45
