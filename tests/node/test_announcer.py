"""What a node says of itself, and that each word outlives the one before."""

from typing import Any

import pytest
from nectar_node.announcer import Announcer, Pace
from nectar_node.speed import Speed
from nectar_protocol.address import Address
from nectar_protocol.announcement import MAX_LIFE_MS, MAX_SIZE, Announcement, NodeState, Profile
from nectar_protocol.identity import Identity
from nectar_protocol.manifest import ModelID

MODEL = ModelID(b"m" * 32)
IDENTITY = Identity.from_seed(b"n" * 32)


class Heard:
    """A directory that keeps what it is told, or cannot."""

    def __init__(self, kept: bool = True, broken: bool = False) -> None:
        self.kept, self.broken, self.words = kept, broken, list[Announcement]()

    async def announce(self, announcement: Announcement) -> bool:
        if self.broken:
            raise RuntimeError("p2pd has ended")
        self.words.append(announcement)
        return self.kept


async def addresses() -> tuple[Address, ...]:
    return (Address.parse("/ip4/192.0.2.1/tcp/31330"),) * 20


def make(directory: Any, clock_ms: list[int] | None = None, pace: Pace | None = None) -> Announcer:
    clock_ms = clock_ms or [1_000_000]
    announcer = Announcer(IDENTITY, MODEL, Profile.BF16, pace or Pace(), lambda: clock_ms[0])
    announcer.attach(directory, addresses)
    return announcer


async def test_what_is_said_is_signed_fits_and_holds_what_was_measured() -> None:
    heard = Heard()
    announcer = make(heard)
    announcer.speed = Speed(decode_s=0.002, prefill_s=0.0005)
    assert await announcer.say(0, 3, NodeState.SERVING)
    word = Announcement.unpack(heard.words[0].pack())
    assert (word.node, word.model, word.profile) == (IDENTITY.public, MODEL, Profile.BF16)
    assert (word.start, word.stop, word.state) == (0, 3, NodeState.SERVING)
    assert (word.decode_us, word.prefill_us) == (2000, 500)
    assert len(word.pack()) <= MAX_SIZE


async def test_who_has_measured_nothing_claims_no_speed_and_who_has_keeps_it_while_loading_again() -> None:
    heard = Heard()
    announcer = make(heard)
    await announcer.say(0, 3, NodeState.JOINING)
    announcer.speed = Speed(decode_s=0.002)
    await announcer.say(3, 6, NodeState.JOINING)
    assert [word.decode_us for word in heard.words] == [0, 2000]


async def test_every_word_outlives_the_one_before_even_when_the_clock_stands_or_goes_back() -> None:
    heard, clock_ms = Heard(), [0]
    announcer = make(heard, clock_ms, Pace(life_ms=75_000))
    await announcer.say(0, 3, NodeState.SERVING)
    for now_ms in (1_000_000, 1_000_000, 995_000, 1_000_001):
        clock_ms[0] = now_ms
        await announcer.repeat()
    expiries = [word.expires_ms for word in heard.words]
    assert expiries[1] == 1_075_000
    assert expiries == sorted(set(expiries))
    clock_ms[0] = 1_000
    await announcer.repeat()  # after a clock that was wrong by a lot, words are believed again
    assert heard.words[-1].expires_ms == 1_000 + MAX_LIFE_MS


async def test_the_same_word_is_repeated_until_another_is_said() -> None:
    heard = Heard()
    announcer = make(heard)
    assert not await announcer.repeat()
    await announcer.say(0, 3, NodeState.SERVING)
    await announcer.repeat()
    await announcer.say(0, 3, NodeState.LEAVING)
    await announcer.repeat()
    assert [word.state for word in heard.words] == [NodeState.SERVING] * 2 + [NodeState.LEAVING] * 2
    assert announcer.last == heard.words[-1]


async def test_who_repeats_that_it_wants_to_move_keeps_its_turn() -> None:
    heard, clock_ms = Heard(), [1_000]
    announcer = make(heard, clock_ms)
    for state in (NodeState.MOVING, NodeState.SERVING, NodeState.MOVING):
        await announcer.say(0, 3, state)
        clock_ms[0] += 30_000
        await announcer.repeat()
        clock_ms[0] += 1_000
    assert [word.issued_ms for word in heard.words] == [1_000, 1_000, 32_000, 62_000, 63_000, 63_000]
    assert [word.expires_ms for word in heard.words] == [76_000, 106_000, 107_000, 137_000, 138_000, 168_000]


@pytest.mark.parametrize("heard", [Heard(kept=False), Heard(broken=True)])
async def test_a_word_that_nobody_hears_is_no_error_and_is_said_again_later(heard: Heard) -> None:
    announcer = make(heard)
    assert not await announcer.say(0, 3, NodeState.MOVING)
    heard.kept, heard.broken = True, False
    assert await announcer.repeat()
    assert heard.words[-1].state is NodeState.MOVING
