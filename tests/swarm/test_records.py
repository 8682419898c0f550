"""The DHT keeps a node's own signed word under its own key for its own life, and nothing else."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hivemind.dht.routing import DHTID
from hivemind.dht.validation import DHTRecord
from hivemind.utils.serializer import MSGPackSerializer
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol.announcement import MAX_LIFE_MS, MAX_SIZE, Announcement
from nectar_protocol.errors import MalformedError
from nectar_protocol.identity import Identity
from nectar_protocol.manifest import ModelID
from nectar_swarm.records import CLOCK_SKEW_MS, INDEX_KEY, AnnouncementValidator, model_key

Announce = Callable[..., Announcement]

NODE, OTHER = Identity.from_seed(b"n" * 32), Identity.from_seed(b"o" * 32)
MODEL, OTHER_MODEL = ModelID(b"m" * 32), ModelID(b"o" * 32)
VALIDATOR = AnnouncementValidator()


def dump(value: object) -> bytes:
    data: bytes = MSGPackSerializer.dumps(value)
    return data


def record(
    announcement: Announcement, key: str | None = None, subkey: object = NODE.peer_id, **other: Any
) -> DHTRecord:
    values = {
        "key": DHTID.generate(source=key or model_key(announcement.model)).to_bytes(),
        "subkey": dump(subkey),
        "value": dump(announcement.pack()),
        "expiration_time": announcement.expires_ms / 1000,
    }
    return DHTRecord(**values | other)


def test_a_nodes_word_is_kept_under_its_models_key(announce: Announce) -> None:
    assert VALIDATOR.validate(record(announce(NODE, MODEL)))


def test_a_nodes_word_is_kept_in_the_index_under_its_model(announce: Announce) -> None:
    assert VALIDATOR.validate(record(announce(NODE, MODEL), INDEX_KEY, MODEL.hex()))


@pytest.mark.parametrize(
    ("key", "subkey"),
    [
        (model_key(OTHER_MODEL), NODE.peer_id),
        (model_key(MODEL), OTHER.peer_id),
        (model_key(MODEL), MODEL.hex()),
        (model_key(MODEL), None),
        (model_key(MODEL), [NODE.peer_id]),
        (INDEX_KEY, OTHER_MODEL.hex()),
        (INDEX_KEY, NODE.peer_id),
        ("storage for everybody", NODE.peer_id),
    ],
)
def test_another_place_is_refused(announce: Announce, key: str, subkey: object) -> None:
    assert not VALIDATOR.validate(record(announce(NODE, MODEL), key, subkey))


def test_anothers_signature_is_refused(announce: Announce) -> None:
    forged = replace(announce(OTHER, MODEL), node=NODE.public)
    assert not VALIDATOR.validate(record(forged))


def test_a_changed_word_is_refused(announce: Announce) -> None:
    assert not VALIDATOR.validate(record(replace(announce(NODE, MODEL), stop=9)))


@pytest.mark.parametrize("shift_s", [-30, -1, 1, 3600])
def test_another_life_than_the_signed_one_is_refused(announce: Announce, shift_s: int) -> None:
    announcement = announce(NODE, MODEL)
    longer = announcement.expires_ms / 1000 + shift_s
    assert not VALIDATOR.validate(record(announcement, expiration_time=longer))


def test_a_word_from_the_future_is_refused(announce: Announce) -> None:
    issued_ms = int(time.time() * 1000) + CLOCK_SKEW_MS + 60_000
    announcement = announce(NODE, MODEL, issued_ms=issued_ms, expires_ms=issued_ms + 60_000)
    assert not VALIDATOR.validate(record(announcement))


def test_a_clock_a_little_ahead_is_borne(announce: Announce) -> None:
    issued_ms = int(time.time() * 1000) + CLOCK_SKEW_MS // 2
    announcement = announce(NODE, MODEL, issued_ms=issued_ms, expires_ms=issued_ms + MAX_LIFE_MS)
    assert VALIDATOR.validate(record(announcement))


def test_the_allow_list_counts_for_every_place(announce: Announce) -> None:
    validator = AnnouncementValidator(frozenset({NODE.peer_id}))
    assert validator.validate(record(announce(NODE, MODEL)))
    assert not validator.validate(record(announce(OTHER, MODEL), subkey=OTHER.peer_id))
    assert not validator.validate(record(announce(OTHER, MODEL), INDEX_KEY, MODEL.hex()))


@given(st.binary(max_size=2 * MAX_SIZE), st.binary(max_size=160), st.floats(allow_nan=True))
def test_garbage_is_refused_without_an_error(value: bytes, subkey: bytes, expiration_time: float) -> None:
    key = DHTID.generate(source=INDEX_KEY).to_bytes()
    assert not VALIDATOR.validate(DHTRecord(key, subkey, value, expiration_time))
    assert not VALIDATOR.validate(DHTRecord(key, dump(subkey), dump(value), expiration_time))


@pytest.mark.parametrize("value", [None, 1, "text", [], {}, [b"a"] * 3, b""])
def test_what_is_no_announcement_is_refused(announce: Announce, value: object) -> None:
    assert not VALIDATOR.validate(record(announce(NODE, MODEL), value=dump(value)))


def test_what_is_too_large_is_not_even_parsed(announce: Announce, monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(data: bytes) -> None:
        raise AssertionError("parsed")

    monkeypatch.setattr("nectar_swarm.records.MSGPackSerializer.loads", parse)
    good = record(announce(NODE, MODEL))
    for large in (replace(good, value=bytes(MAX_SIZE + 17)), replace(good, subkey=bytes(129))):
        with pytest.raises(MalformedError, match="too large"):
            VALIDATOR._check(large)


def test_the_signature_is_verified_last(announce: Announce, monkeypatch: pytest.MonkeyPatch) -> None:
    def unpack(data: bytes) -> None:
        raise AssertionError("verified")

    monkeypatch.setattr("nectar_swarm.records.Announcement.unpack", unpack)
    word = announce(NODE, MODEL)
    for wrong in (record(word, subkey=OTHER.peer_id), record(word, INDEX_KEY), record(word, expiration_time=1.0)):
        with pytest.raises(MalformedError):
            VALIDATOR._check(wrong)
    VALIDATOR._check(record(word))


def test_a_good_record_is_read_as_the_announcement_that_it_holds(announce: Announce) -> None:
    word = announce(NODE, MODEL)
    assert VALIDATOR.read(record(word)) == word
    assert VALIDATOR.read(record(replace(word, stop=9))) is None


def test_two_validators_are_one() -> None:
    assert VALIDATOR.merge_with(AnnouncementValidator())
