"""What a session's key signs for one node: no other key, node, link or number can use it."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol.errors import MalformedError, ProtocolError, SignatureError
from nectar_protocol.identity import Identity, PublicKey
from nectar_protocol.opening import HistoryRequest, Opening

NODE, LINK, SESSION, OTHER = (Identity.from_seed(bytes([n]) * 32) for n in (1, 2, 3, 4))
OPENING = Opening(
    NODE.public, LINK.public, 2**64 - 1, bytes(32), SESSION.public, bytes(32), bytes(32), 0, 8, 2, 1, 4096
)  # fmt: skip
REQUEST = HistoryRequest(NODE.public, bytes(32), SESSION.public, 1_767_225_600_000)


@pytest.mark.parametrize("signed", [OPENING, REQUEST], ids=["opening", "request"])
def test_only_its_session_can_sign_it_and_every_field_counts(signed: Opening | HistoryRequest) -> None:
    signature = signed.sign(SESSION)
    signed.verify(signature)
    with pytest.raises(SignatureError):
        signed.verify(signed.sign(OTHER))
    for field in fields(signed):
        value = getattr(signed, field.name)
        other = value - 1 if isinstance(value, int) and value else 1 if value == 0 else OTHER.public
        with pytest.raises(SignatureError):
            replace(signed, **{field.name: PublicKey(other) if isinstance(other, bytes) else other}).verify(signature)


def test_neither_can_stand_for_the_other() -> None:
    with pytest.raises(SignatureError):
        REQUEST.verify(OPENING.sign(SESSION))


def test_a_node_opens_no_session_on_itself() -> None:
    with pytest.raises(MalformedError, match="its node's"):
        replace(OPENING, session=NODE.public)


@given(st.binary(max_size=250))
def test_other_bytes_raise_nothing_but_a_protocol_error(data: bytes) -> None:
    for kind in (Opening, HistoryRequest):
        assert kind.unpack((OPENING if kind is Opening else REQUEST).pack())
        with pytest.raises(ProtocolError):
            kind.unpack(data)
