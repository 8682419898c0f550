"""Commands: one layout per kind, every signer in its own role, and no key that libraries disagree on."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol import errors
from nectar_protocol.command import SignedCommand
from nectar_protocol.commands import BY_MAGIC, KINDS, BindPayee, ExtendHold, OpenHold, parse_command
from nectar_protocol.errors import ConflictError, IdentityError, MalformedError, ProtocolError
from nectar_protocol.identity import Identity, PublicKey, check_registrable

FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS = json.loads((FOLDER / "command.json").read_text())
RULE = json.loads((FOLDER / "verification.json").read_text())
VALID = {case["name"]: bytes.fromhex(case["packed"]) for case in VECTORS["valid"]}

# The document's layouts behind ledger, id and expiry: "name:size", or a bare name for 32 bytes.
LINES = "lines"
LAYOUTS = {
    "open-hold": f"payer session model policy hold_expires_ms:8 weight:1 profiles {LINES}",
    "extend-hold": f"payer hold hold_expires_ms:8 revision:2 {LINES}",
    "close-hold": "session hold",
    "bind-payee": "node payee",
    "change-payee": "node payee successor",
    "fund-purse": "account amount_ucr:8",
    "withdraw-purse": "account amount_ucr:8",
    "grant": "operator account amount_ucr:8",
    "set-key": "operator key purpose:1 state:1",
    "verdict": "auditor node batch:8 hold start:2 stop:2 profile:2 outcome:1 tokens:4 error_ppm:4 limit_ppm:4 evidence",
    "dispute": "session hold node evidence",
}


def check(data: bytes) -> None:
    parse_command(data).verify()


def encode(values: dict[str, Any], layout: str) -> bytes:
    parts = [bytes.fromhex(values["ledger"]), bytes.fromhex(values["id"]), int(values["expires_ms"]).to_bytes(8, "big")]
    for field in layout.split():
        name, _, size = field.partition(":")
        value = values[name]
        if name == LINES:
            parts += [len(value).to_bytes(2, "big"), bytes(2)]
            parts += [bytes.fromhex(x["server"]) + int(x["cap_units"]).to_bytes(8, "big") for x in value]
        elif name == "profiles":
            parts.append(bytes([sum(1 << profile for profile in value)]))
        else:
            parts.append(int(value).to_bytes(int(size), "big") if size else bytes.fromhex(value))
    return b"".join(parts)


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["name"])
def test_a_valid_command_is_parsed_verified_and_packed_again(case: dict[str, Any]) -> None:
    packed = bytes.fromhex(case["packed"])
    signed = parse_command(packed)
    signed.verify()
    assert signed.pack() == packed
    assert case["kind"] == signed.command.NAME
    assert [role.hex() for role in signed.command.signers()] == case["roles"]
    assert signed.command.body_hash.hex() == case["body_hash"]
    assert hashlib.sha256(packed[: -64 * len(case["roles"])]).hexdigest() == case["body_hash"]


@pytest.mark.parametrize(
    "case", [case for case in VECTORS["valid"] if case["kind"] in LAYOUTS], ids=lambda case: case["name"]
)
def test_the_body_is_the_struct_of_the_document(case: dict[str, Any]) -> None:
    packed = bytes.fromhex(case["packed"])
    body = packed[: -64 * len(case["roles"])]
    assert body[8:] == encode(case["fields"], LAYOUTS[case["kind"]])


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["name"])
def test_an_invalid_command_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(getattr(errors, case["error"])):
        check(bytes.fromhex(case["packed"]))


def test_every_kind_has_a_vector_a_magic_and_a_role_of_its_own() -> None:
    assert {parse_command(data).command.__class__ for data in VALID.values()} == set(KINDS)
    assert len(BY_MAGIC) == len({kind.NAME for kind in KINDS}) == len(KINDS)
    assert all(len(magic) == 8 for magic in BY_MAGIC)


@given(st.sampled_from(sorted(VALID)), st.data())
def test_a_command_with_one_byte_wrong_is_refused(name: str, data: st.DataObject) -> None:
    packed = bytearray(VALID[name])
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ProtocolError):
        check(bytes(packed))


@given(st.sampled_from(KINDS), st.binary(max_size=400))
def test_any_bytes_are_the_only_encoding_of_a_command_or_malformed(kind: type[OpenHold], tail: bytes) -> None:
    try:
        signed = parse_command(kind.MAGIC + tail)
    except MalformedError:
        return
    assert signed.pack() == kind.MAGIC + tail


def test_a_hold_is_what_its_request_asked_for() -> None:
    request = parse_command(VALID["open a hold"]).command
    assert isinstance(request, OpenHold)
    hold = request.hold()
    assert hold.id == hashlib.sha256(request.pack()).digest()
    assert (hold.ledger, hold.session, hold.lines, hold.revision) == (request.ledger, request.session, request.lines, 1)


def test_an_extension_gives_the_next_revision_of_its_own_hold_only() -> None:
    request, extension = parse_command(VALID["open a hold"]).command, parse_command(VALID["extend a hold"]).command
    assert isinstance(request, OpenHold)
    assert isinstance(extension, ExtendHold)
    hold = request.hold()
    revised = extension.revised(hold)
    assert (revised.id, revised.revision, revised.expires_ms) == (hold.id, 2, extension.hold_expires_ms)
    with pytest.raises(ConflictError, match="another hold"):
        extension.revised(replace(hold, id=bytes(32)))
    with pytest.raises(ConflictError, match="revision 2 after 2"):
        extension.revised(revised)


def test_keys_on_two_machines_sign_one_command() -> None:
    node, payee = Identity.from_seed(b"n" * 32), Identity.from_seed(b"p" * 32)
    bind = BindPayee(bytes(32), bytes(16), 1, node.public, payee.public)
    signatures = (bind.sign_as("node", node), bind.sign_as("payee", payee))
    SignedCommand(bind, signatures).verify()
    assert SignedCommand(bind, signatures) == bind.signed(payee, node)
    with pytest.raises(IdentityError, match="does not sign"):
        bind.sign_as("node", payee)
    with pytest.raises(IdentityError, match="its node and its payee"):
        bind.signed(node)


@pytest.mark.parametrize(
    "change",
    [{"ledger": bytes(31)}, {"id": bytes(17)}, {"payee": b""}, {"expires_ms": -1}, {"expires_ms": 2**53}],
    ids=str,
)
def test_a_command_with_a_field_out_of_its_range_is_never_made(change: dict[str, Any]) -> None:
    bind = parse_command(VALID["bind a payee"]).command
    with pytest.raises(MalformedError, match=next(iter(change))):
        replace(bind, **change)


@pytest.mark.parametrize("encoding", RULE["small_order_encodings"])
def test_no_key_of_small_order_is_registered(encoding: str) -> None:
    with pytest.raises(IdentityError, match="registered"):
        check_registrable(PublicKey(bytes.fromhex(encoding)))


@given(st.binary(min_size=32, max_size=32))
def test_every_key_made_of_a_seed_can_be_registered(seed: bytes) -> None:
    check_registrable(Identity.from_seed(seed).public)
