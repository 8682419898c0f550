"""What a client signs verifies by the rules of RFC 9421, as another implementation of them has it."""

import re
import time
from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from http_message_signatures import HTTPMessageVerifier, InvalidSignature, MappingKeyResolver
from http_message_signatures.algorithms import ED25519
from http_message_signatures.structures import VerifyResult
from nectar_ledger_client import calls
from nectar_ledger_client.call import Call
from nectar_ledger_client.exchange import base_url, build_request
from nectar_protocol.identity import Identity

from tests.ledger.world import person

BASE = base_url("https://ledger.example/below")
COMPONENTS = ("@method", "@authority", "@target-uri", "content-digest")


class Message:
    """A request as a server sees it."""

    def __init__(self, request: httpx.Request) -> None:
        self.method, self.url, self.headers = request.method, str(request.url), dict(request.headers)


def verify(message: Message, identity: Identity, body: bytes) -> VerifyResult:
    key = Ed25519PublicKey.from_public_bytes(identity.public)
    keys = MappingKeyResolver(public_keys={identity.public.hex(): key}, private_keys={})
    verifier = HTTPMessageVerifier(signature_algorithm=ED25519, key_resolver=keys)
    (result,) = verifier.verify(
        message, expect_tag="nectar", require_components=COMPONENTS, body=body, max_age=timedelta(minutes=1)
    )
    return result


def signed_request(call: Call[object], now_s: int | None = None) -> httpx.Request:
    return build_request(BASE, call, int(time.time()) if now_s is None else now_s)


def read_purse() -> Call[object]:
    return calls.purse(person("payer"))


def put_evidence() -> Call[object]:
    return calls.put_evidence(person("payer"), b"evidence")


@pytest.mark.parametrize("make", [read_purse, put_evidence])
def test_a_signed_request_verifies_with_the_senders_key(make: Callable[[], Call[object]]) -> None:
    call = make()
    result = verify(Message(signed_request(call)), person("payer"), call.body or b"")
    assert result.parameters["keyid"] == person("payer").public.hex()
    assert set(result.parameters) == {"created", "expires", "nonce", "keyid", "tag"}


def test_a_signature_holds_for_a_minute_and_has_a_nonce_of_its_own() -> None:
    inputs = [signed_request(read_purse(), now_s=1_800_000_000).headers["Signature-Input"] for _ in range(2)]
    assert all(";created=1800000000;" in value and ";expires=1800000060;" in value for value in inputs)
    nonces = [re.findall('nonce="([0-9a-f]{32})"', value)[0] for value in inputs]
    assert nonces[0] != nonces[1]


@pytest.mark.parametrize("part", ["method", "url", "digest", "body"])
def test_whatever_of_a_request_is_changed_its_signature_no_longer_verifies(part: str) -> None:
    call = put_evidence()
    message, body = Message(signed_request(call)), call.body or b""
    match part:
        case "method":
            message.method = "PUT"
        case "url":
            message.url = message.url.replace("ledger.example", "ledger.invalid")
        case "digest":
            message.headers["content-digest"] = Message(signed_request(read_purse())).headers["content-digest"]
        case "body":
            body += b"!"
    with pytest.raises(InvalidSignature):
        verify(message, person("payer"), body)


def test_what_is_not_signed_bears_no_key() -> None:
    request = signed_request(calls.balance(person("payer").public))
    assert not {"signature", "signature-input", "content-digest"} & set(request.headers)
