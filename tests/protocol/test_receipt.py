"""A receipt: 344 bytes with one encoding, two signers, and totals that only rise."""

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol import errors
from nectar_protocol.announcement import MAX_BLOCKS, Profile
from nectar_protocol.errors import ConflictError, IdentityError, MalformedError, ProtocolError, SignatureError
from nectar_protocol.identity import Identity
from nectar_protocol.receipt import BODY, MAGIC, SIZE, Receipt, SignedReceipt, Work, check_follows
from nectar_protocol.record import MAX_COUNT

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "receipt.json").read_text())
SERVER, SESSION = Identity.from_seed(b"n" * 32), Identity.from_seed(b"s" * 32)

counts = st.integers(0, MAX_COUNT)
ids = st.binary(min_size=32, max_size=32)


@st.composite
def works(draw: st.DrawFn) -> Work:
    reserved, *pairs = draw(counts), *(draw(st.tuples(counts, counts)) for _ in range(3))
    return Work(reserved, *(n for tokens, context in pairs for n in (tokens, context if tokens else 0)))


@st.composite
def receipts(draw: st.DrawFn) -> Receipt:
    start = draw(st.integers(0, MAX_BLOCKS - 1))
    return Receipt(
        draw(ids), SERVER.public, SESSION.public, draw(ids), draw(st.integers(1, MAX_COUNT)), start,
        draw(st.integers(start + 1, MAX_BLOCKS)), draw(st.sampled_from(Profile)), draw(st.booleans()), draw(works()),
        draw(counts),
    )  # fmt: skip


def signed(receipt: Receipt) -> SignedReceipt:
    return SignedReceipt(receipt, receipt.sign(SERVER), receipt.sign(SESSION))


def check(data: bytes) -> None:
    SignedReceipt.unpack(data).verify()


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["name"])
def test_the_packed_bytes_are_the_struct_of_the_document_and_verify(case: dict[str, Any]) -> None:
    packed, f = bytes.fromhex(case["packed"]), case["fields"]
    receipt = SignedReceipt.unpack(packed)
    receipt.verify()
    assert receipt.pack() == packed
    assert receipt.receipt.body() == struct.pack(
        ">8s32s32s32s32sQHHHH8Q",
        b"NECRCPT1", *(bytes.fromhex(f[name]) for name in ("hold", "server", "session", "commitment")), int(f["seq"]),
        f["start"], f["stop"], f["profile"], f["final"],
        *(int(f["work"][name]) for name in Work._fields), int(f["units"]),
    )  # fmt: skip


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["name"])
def test_an_invalid_receipt_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        check(bytes.fromhex(case["packed"]))


@pytest.mark.parametrize("case", VECTORS["orders"], ids=lambda case: case["name"])
def test_only_what_continues_the_totals_follows(case: dict[str, Any]) -> None:
    previous, new = (Receipt.from_body(bytes.fromhex(case[name])) for name in ("previous", "new"))
    if case["follows"]:
        check_follows(previous, new)
    else:
        with pytest.raises(ConflictError):
            check_follows(previous, new)


def test_the_sizes_are_those_of_the_document() -> None:
    assert (BODY.size, SIZE) == (216, 344)


@given(receipts())
def test_unpack_undoes_pack(receipt: Receipt) -> None:
    both = signed(receipt)
    assert SignedReceipt.unpack(both.pack()) == both
    both.verify()


@pytest.mark.parametrize("offset", range(SIZE))
def test_a_receipt_with_one_byte_wrong_is_refused(offset: int) -> None:
    packed = bytearray(bytes.fromhex(VECTORS["valid"][0]["packed"]))
    for mask in (0x01, 0x80, 0xFF):
        packed[offset] ^= mask
        with pytest.raises(MalformedError if offset < len(MAGIC) else ProtocolError):
            check(bytes(packed))
        packed[offset] ^= mask


@given(receipts(), st.integers(0, BODY.size - 1), st.integers(1, 255))
def test_a_body_with_one_byte_changed_is_another_receipt_or_none(receipt: Receipt, offset: int, mask: int) -> None:
    body = bytearray(receipt.body())
    body[offset] ^= mask
    try:
        other = Receipt.from_body(bytes(body))
    except MalformedError:
        return
    assert other != receipt
    assert other.body() == body


@given(st.binary(max_size=SIZE + 4) | st.binary(min_size=SIZE - 8, max_size=SIZE - 8).map(lambda tail: MAGIC + tail))
def test_any_bytes_raise_nothing_but_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        check(data)


def test_each_verifies_by_itself_and_in_its_own_role_only() -> None:
    receipt = SignedReceipt.unpack(bytes.fromhex(VECTORS["valid"][0]["packed"])).receipt
    receipt = replace(receipt, server=SERVER.public, session=SESSION.public)
    by_server, by_session = receipt.sign(SERVER), receipt.sign(SESSION)
    receipt.verify_server(by_server)
    receipt.verify_session(by_session)
    wrong: list[tuple[Callable[[bytes], None], bytes]] = [
        (receipt.verify_server, by_session), (receipt.verify_session, by_server)
    ]  # fmt: skip
    for verify, signature in wrong:
        with pytest.raises(SignatureError):
            verify(signature)
    with pytest.raises(IdentityError, match="neither"):
        receipt.sign(Identity.from_seed(bytes(32)))


@given(receipts(), st.lists(st.integers(0, 1000), min_size=8, max_size=8))
def test_totals_that_rise_follow_and_going_back_does_not(receipt: Receipt, more: list[int]) -> None:
    first = replace(receipt, final=False, seq=1, work=Work(*[1000] * 7), units=1000)
    totals = [total + n for total, n in zip([*first.work, first.units], more, strict=True)]
    later = replace(first, seq=2, work=Work(*totals[:7]), units=totals[7])
    check_follows(first, later)
    with pytest.raises(ConflictError) as caught:
        check_follows(later, first)
    assert str(caught.value).count(" fall from ") == sum(n > 0 for n in more)


@given(receipts(), receipts(), receipts())
def test_following_is_transitive(a: Receipt, b: Receipt, c: Receipt) -> None:
    try:
        check_follows(a, b)
        check_follows(b, c)
    except ConflictError:
        return
    check_follows(a, c)
