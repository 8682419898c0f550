"""What others say they keep is read within bounds, and nobody's answer drowns the others'."""

import contextlib
from random import Random
from typing import Any

import msgpack
import pytest
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.utils.serializer import MSGPackSerializer
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol.errors import MalformedError
from nectar_swarm.answers import DICTIONARY, MAX_ANSWER, Stored, read_answer, sample, thin

LATER_S = 4e9


def packed(records: Any, code: int = DICTIONARY) -> bytes:
    data: bytes = msgpack.packb(msgpack.ExtType(code, msgpack.packb([float("inf"), LATER_S, records])))
    return data


def records_of(name: str, count: int) -> list[Stored]:
    return [Stored(f"{name}{number}", b"value", LATER_S) for number in range(count)]


def test_hiveminds_dictionaries_are_read() -> None:
    kept = DictionaryDHTValue()
    kept.store("a", b"1", LATER_S)
    kept.store("b", b"2", LATER_S + 1)
    assert read_answer(MSGPackSerializer.dumps(kept)) == [Stored("a", b"1", LATER_S), Stored("b", b"2", LATER_S + 1)]


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xc1", b"garbage", msgpack.packb([1, 2, []]), packed([], code=1), packed(7), packed([{1: 2}]),
        packed([["a", b"1", LATER_S]] * (MAX_ANSWER + 1)), b"\x91" * 10_000,
        msgpack.packb(msgpack.ExtType(DICTIONARY, b"\xc1")),
    ],
)  # fmt: skip
def test_anything_else_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        read_answer(data)


@given(st.binary(max_size=200))
def test_garbage_is_malformed_or_holds_records(data: bytes) -> None:
    for made in (data, packed([]) + data, msgpack.packb(msgpack.ExtType(DICTIONARY, data))):
        with contextlib.suppress(MalformedError):
            assert all(isinstance(record, Stored) for record in read_answer(made))


def test_of_the_records_only_those_of_the_right_types_are_taken_and_one_for_each_subkey() -> None:
    wrong = [["a"], [b"a", b"1", LATER_S], ["a", "1", LATER_S], ["a", b"1", 5], 7, None, [["a"], b"1", LATER_S]]
    good = [["a", b"1", LATER_S], ["a", b"2", LATER_S]]
    assert read_answer(packed([*wrong, *good])) == [Stored("a", b"2", LATER_S)]


def test_of_a_long_answer_the_known_are_kept_and_others_at_random() -> None:
    answer = records_of("spam", 500)
    answer[250] = good = Stored("known", b"value", LATER_S)
    thinned = [thin(answer, {"known"}, 10, Random(seed)) for seed in range(2)]
    assert [records[0] for records in thinned] == [good, good]
    assert [len(set(records)) for records in thinned] == [10, 10]
    assert set(thinned[0]) != set(thinned[1])


def test_a_flood_in_one_answer_does_not_drown_the_others() -> None:
    honest = records_of("honest", 20)
    taken = sample([records_of("spam", 10_000), honest, honest[::-1]], 60)
    assert len(taken) == 60
    assert set(honest) < set(taken)


def test_what_several_say_is_taken_once() -> None:
    answers = [records_of("node", 30)] * 5
    assert sorted(sample(answers, 1000)) == sorted(answers[0])
    assert sample([], 10) == sample([[]], 10) == []
