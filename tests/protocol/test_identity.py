"""One Ed25519 key in three forms, equal to libp2p's, and signatures under libsodium's rule."""

import contextlib
import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol import base58, errors
from nectar_protocol.errors import IdentityError, ProtocolError, SignatureError
from nectar_protocol.identity import (
    KEY_FILE_SIZE,
    PEER_ID_PREFIX,
    PUBLIC_KEY_SIZE,
    SIGNATURE_SIZE,
    Identity,
    PublicKey,
    parse_peer_id,
    peer_id,
    public_key,
    verify,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "identity.json").read_text())
RULE = json.loads((Path(__file__).parents[1] / "vectors" / "verification.json").read_text())

ROLE, OTHER_ROLE = b"nectar/test/v1\n", b"nectar/other/v1\n"
ALICE, BOB = Identity.from_seed(bytes(31) + b"a"), Identity.from_seed(bytes(31) + b"b")

seeds = st.binary(min_size=32, max_size=32)
public_keys = seeds.map(PublicKey)

valid = pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["name"])


def check(case: dict[str, Any]) -> None:
    key, role, body, signature = (bytes.fromhex(case[field]) for field in ("public_key", "role", "body", "signature"))
    verify(public_key(key), role, body, signature)


@pytest.fixture(scope="module")
def hivemind() -> SimpleNamespace:
    """hivemind's reader of peer IDs and of libp2p's protobufs; importing it may warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        p2p = pytest.importorskip("hivemind.p2p")
        proto = pytest.importorskip("hivemind.proto.crypto_pb2")
    return SimpleNamespace(PeerID=p2p.PeerID, proto=proto)


# Vectors


@valid
def test_a_seed_gives_the_public_key_the_key_file_and_the_peer_id(case: dict[str, Any]) -> None:
    identity = Identity.from_seed(bytes.fromhex(case["seed"]))
    assert identity.public.hex() == case["public_key"]
    assert identity.to_key_file().hex() == case["key_file"]
    assert identity.peer_id == case["peer_id"] == peer_id(identity.public)


@valid
def test_a_key_file_and_a_peer_id_give_the_key_back(case: dict[str, Any]) -> None:
    identity = Identity.from_key_file(bytes.fromhex(case["key_file"]))
    assert bytes(identity.key).hex() == case["seed"]
    assert parse_peer_id(case["peer_id"]) == identity.public


def test_the_first_vector_is_that_of_rfc_8032() -> None:
    assert VECTORS["valid"][0]["public_key"] == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


@valid
def test_hivemind_reads_the_same_peer_id(case: dict[str, Any], hivemind: SimpleNamespace) -> None:
    theirs = hivemind.PeerID.from_base58(case["peer_id"])
    assert theirs.to_bytes() == PEER_ID_PREFIX + bytes.fromhex(case["public_key"])
    assert hivemind.PeerID(theirs.to_bytes()).to_base58() == case["peer_id"]


@valid
def test_the_key_file_is_libp2ps_protobuf(case: dict[str, Any], hivemind: SimpleNamespace) -> None:
    private = hivemind.proto.PrivateKey.FromString(bytes.fromhex(case["key_file"]))
    assert private.key_type == hivemind.proto.Ed25519
    assert private.data.hex() == case["seed"] + case["public_key"]
    assert private.SerializeToString().hex() == case["key_file"]


@valid
def test_the_peer_id_holds_libp2ps_protobuf(case: dict[str, Any], hivemind: SimpleNamespace) -> None:
    public = hivemind.proto.PublicKey(
        key_type=hivemind.proto.Ed25519, data=bytes.fromhex(case["public_key"])
    ).SerializeToString()
    assert base58.decode(case["peer_id"]) == b"\0" + bytes([len(public)]) + public


@pytest.mark.parametrize("case", VECTORS["invalid_key_files"], ids=lambda case: case["name"])
def test_an_invalid_key_file_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        Identity.from_key_file(bytes.fromhex(case["key_file"]))


@pytest.mark.parametrize("case", VECTORS["invalid_peer_ids"], ids=lambda case: case["name"])
def test_an_invalid_peer_id_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        parse_peer_id(case["peer_id"])


@pytest.mark.parametrize("case", RULE["valid"], ids=lambda case: case["name"])
def test_a_signature_that_libsodium_accepts_is_accepted(case: dict[str, Any]) -> None:
    check(case)


@pytest.mark.parametrize("case", RULE["invalid"], ids=lambda case: case["name"])
def test_a_signature_that_libsodium_refuses_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        check(case)


# Forms of a key


@given(public_keys)
def test_a_peer_id_gives_back_the_key_it_was_made_of(key: PublicKey) -> None:
    text = peer_id(key)
    assert text.startswith("12D3KooW")
    assert len(text) == 52
    assert parse_peer_id(text) == key


@given(seeds)
def test_a_key_file_gives_back_the_identity_it_was_made_of(seed: bytes) -> None:
    identity = Identity.from_seed(seed)
    assert len(identity.to_key_file()) == KEY_FILE_SIZE
    assert Identity.from_key_file(identity.to_key_file()) == identity


@given(st.text() | st.text(base58.ALPHABET, min_size=50, max_size=54).map(lambda text: "12D3KooW" + text[8:]))
def test_any_text_is_the_peer_id_of_one_key_or_an_identity_error(text: str) -> None:
    with contextlib.suppress(IdentityError):
        assert peer_id(parse_peer_id(text)) == text


@given(st.binary(max_size=100))
def test_any_bytes_are_a_key_file_or_an_identity_error(data: bytes) -> None:
    with pytest.raises(IdentityError):
        Identity.from_key_file(data)


@pytest.mark.parametrize("offset", range(KEY_FILE_SIZE))
def test_a_key_file_with_one_byte_wrong_is_refused(offset: int) -> None:
    data = bytearray(ALICE.to_key_file())
    data[offset] ^= 1
    with pytest.raises(IdentityError):
        Identity.from_key_file(bytes(data))


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_keys_and_seeds_are_32_bytes(size: int) -> None:
    with pytest.raises(IdentityError, match=f"not {size}"):
        public_key(bytes(size))
    with pytest.raises(IdentityError, match=f"not {size}"):
        Identity.from_seed(bytes(size))


def test_generated_identities_differ() -> None:
    assert Identity.generate().public != Identity.generate().public


def test_what_is_printed_of_an_identity_is_its_peer_id_alone() -> None:
    for text in (repr(ALICE), str(ALICE), f"{[ALICE]}"):
        assert ALICE.peer_id in text
        assert bytes(ALICE.key).hex() not in text
        assert repr(bytes(ALICE.key)) not in text
        assert "key=" not in text


# Signatures


@given(seeds, st.binary(max_size=400))
def test_a_signature_verifies_under_its_key_role_and_body_only(seed: bytes, body: bytes) -> None:
    identity = Identity.from_seed(seed)
    signature = identity.sign(ROLE, body)
    assert len(signature) == SIGNATURE_SIZE
    verify(identity.public, ROLE, body, signature)
    for key, role, text in (
        (BOB.public, ROLE, body),
        (identity.public, OTHER_ROLE, body),
        (identity.public, ROLE, body + b"\0"),
    ):
        with pytest.raises(SignatureError):
            verify(key, role, text, signature)


def test_the_same_body_is_signed_in_the_same_bytes() -> None:
    assert ALICE.sign(ROLE, b"body") == ALICE.sign(ROLE, b"body")


@pytest.mark.parametrize("offset", range(SIGNATURE_SIZE))
def test_a_signature_with_one_byte_wrong_is_refused(offset: int) -> None:
    signature = bytearray(ALICE.sign(ROLE, b"body"))
    signature[offset] ^= 1
    with pytest.raises(SignatureError):
        verify(ALICE.public, ROLE, b"body", bytes(signature))


@given(public_keys, st.binary(max_size=100), st.binary(max_size=100))
def test_any_key_and_any_bytes_as_a_signature_give_a_signature_error(
    key: PublicKey, body: bytes, signature: bytes
) -> None:
    with pytest.raises(SignatureError):
        verify(key, ROLE, body, signature)


@pytest.mark.parametrize("encoding", RULE["small_order_encodings"])
def test_a_key_of_small_order_signs_nothing(encoding: str) -> None:
    for r in RULE["small_order_encodings"]:
        for body in range(8):
            with pytest.raises(SignatureError):
                verify(PublicKey(bytes.fromhex(encoding)), ROLE, bytes([body]), bytes.fromhex(r) + bytes(32))


def test_the_error_names_the_peer_and_the_role() -> None:
    with pytest.raises(ProtocolError, match=f"not signed by {ALICE.peer_id} as nectar/test/v1$"):
        verify(ALICE.public, ROLE, b"body", bytes(SIGNATURE_SIZE))


def test_the_sizes_are_those_of_ed25519() -> None:
    assert (PUBLIC_KEY_SIZE, SIGNATURE_SIZE) == (32, 64)
