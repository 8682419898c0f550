"""Signed requests: nobody reads or posts in another's name, now or later, here or elsewhere."""

import base64
import re
from dataclasses import replace

import httpx
import pytest
from nectar_ledger.api.auth import MAX_LIFE_S, SKEW_S, Nonces
from nectar_ledger.api.errors import ApiError
from nectar_ledger_client.signing import signature_headers
from nectar_protocol.identity import PublicKey

from tests.ledger.api.conftest import Serve
from tests.ledger.api.served import ALICE, NO_LIMITS, Served
from tests.ledger.world import START_MS, person

PURSE = f"/v1/accounts/{ALICE.public.hex()}/purse"


def ask(served: Served, headers: dict[str, str], path: str = PURSE) -> tuple[int, str | None]:
    answer = served.http.get(path, headers=headers)
    return answer.status_code, answer.json().get("error")


def test_an_owner_reads_what_is_private(served: Served) -> None:
    assert served.get(PURSE, ALICE).status_code == 200


def test_nobody_else_does(served: Served) -> None:
    answer = served.get(PURSE, person("mallory"))
    assert (answer.status_code, answer.json()["error"]) == (403, "not-authorized")


def test_a_request_that_nobody_signed_is_told_how(served: Served) -> None:
    answer = served.http.get(PURSE)
    assert (answer.status_code, answer.json()["error"]) == (401, "unsigned-request")
    assert "RFC 9421" in answer.json()["message"]


def test_a_request_is_taken_once(served: Served) -> None:
    headers = served.signed(ALICE, "GET", PURSE)
    assert ask(served, headers)[0] == 200
    assert ask(served, headers) == (401, "replayed-request")


@pytest.mark.parametrize("skew_s", [-(MAX_LIFE_S + SKEW_S), SKEW_S])
def test_a_clock_may_be_a_little_wrong(served: Served, skew_s: int) -> None:
    now_s = START_MS // 1000
    headers = signature_headers(ALICE, "GET", served.url + PURSE, b"", now_s + skew_s)
    assert ask(served, headers)[0] == 200


@pytest.mark.parametrize("skew_s", [-(MAX_LIFE_S + SKEW_S + 1), SKEW_S + 1])
def test_a_clock_that_is_too_wrong_is_told_the_time(served: Served, skew_s: int) -> None:
    headers = signature_headers(ALICE, "GET", served.url + PURSE, b"", START_MS // 1000 + skew_s)
    answer = served.http.get(PURSE, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (401, "clock-skew")
    assert str(START_MS) in answer.json()["message"]


def test_another_method_path_query_or_body_was_not_signed(served: Served) -> None:
    other = PURSE.replace("/purse", "/holds")
    assert ask(served, served.signed(ALICE, "GET", other)) == (401, "bad-request-signature")
    assert ask(served, served.signed(ALICE, "POST", PURSE)) == (401, "bad-request-signature")
    assert ask(served, served.signed(ALICE, "GET", other), f"{other}?limit=1") == (401, "bad-request-signature")
    assert ask(served, served.signed(ALICE, "GET", PURSE, b"something")) == (401, "unsigned-request")
    headers = served.signed(ALICE, "POST", "/v1/receipts", b"these")
    answer = served.http.post("/v1/receipts", content=b"those", headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (401, "unsigned-request")


def test_a_name_is_not_enough(served: Served) -> None:
    headers = served.signed(person("mallory"), "GET", PURSE)
    headers["Signature-Input"] = re.sub(
        'keyid="[0-9a-f]+"', f'keyid="{ALICE.public.hex()}"', headers["Signature-Input"]
    )
    assert ask(served, headers) == (401, "bad-request-signature")


def test_a_key_of_small_order_signs_nothing(served: Served) -> None:
    identity = "01" + "00" * 31
    headers = served.signed(ALICE, "GET", PURSE)
    headers["Signature-Input"] = re.sub('keyid="[0-9a-f]+"', f'keyid="{identity}"', headers["Signature-Input"])
    label = headers["Signature"].split("=")[0]
    headers["Signature"] = f"{label}=:{base64.b64encode(bytes([1]) + bytes(63)).decode()}:"
    assert ask(served, headers) == (401, "bad-request-signature")


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (";expires=[0-9]+", ""),
        (";expires=[0-9]+", ";expires=1800000061"),
        (";expires=[0-9]+", ";expires=1799999999"),
        (";created=[0-9]+", ""),
        (";created=[0-9]+", ';created="now"'),
        (";nonce=[^;]+", ""),
        (";nonce=[^;]+", ';nonce="short"'),
        (";keyid=[^;]+", ""),
        (";keyid=[^;]+", ';keyid="alice"'),
        (";tag=[^;]+", ""),
        (";tag=[^;]+", ';tag="other"'),
        ('"content-digest"', ""),
        ('"@authority"', ""),
        ("^.*$", "not a dictionary ("),
        ("^.*$", ""),
        ("$", ", " + ", ".join(f"a{number}=()" for number in range(100))),
    ],
)
def test_a_signature_without_a_part_is_refused(served: Served, pattern: str, replacement: str) -> None:
    headers = served.signed(ALICE, "GET", PURSE)
    headers["Signature-Input"] = re.sub(pattern, replacement, headers["Signature-Input"], count=1)
    status, error = ask(served, headers)
    assert status == 401
    assert error in ("unsigned-request", "bad-request-signature")


@pytest.mark.parametrize("digest", ["", "sha-512=:AAAA:", "sha-256=:AAAA:", "md5=:x:", "sha-256=abc"])
def test_a_digest_is_sha_256(served: Served, digest: str) -> None:
    headers = served.signed(ALICE, "GET", PURSE) | {"Content-Digest": digest}
    assert ask(served, headers) == (401, "unsigned-request")


def test_a_header_that_stands_twice_is_no_signature(served: Served) -> None:
    headers = served.signed(ALICE, "GET", PURSE)
    doubled = [*headers.items(), ("Signature-Input", headers["Signature-Input"])]
    answer = served.http.get(PURSE, headers=doubled)
    assert (answer.status_code, answer.json()["error"]) == (401, "unsigned-request")


def test_what_was_signed_for_another_ledger_does_not_count_here(serve: Serve) -> None:
    """Whoever serves that other ledger has the request, and can send any Host."""
    served = serve(public_url="https://ledger.example")
    elsewhere = signature_headers(ALICE, "GET", f"https://other.example{PURSE}", b"", START_MS // 1000)
    assert ask(served, elsewhere | {"Host": "other.example"}) == (401, "bad-request-signature")
    here = signature_headers(ALICE, "GET", f"https://ledger.example{PURSE}", b"", START_MS // 1000)
    assert ask(served, here | {"Host": "other.example"})[0] == 200


def test_what_is_refused_uses_up_no_nonce(served: Served) -> None:
    headers = served.signed(ALICE, "GET", PURSE)
    wrong = headers | {"Signature": headers["Signature"].replace(":", ":AAAA", 1)}
    assert ask(served, wrong)[0] == 401
    assert ask(served, headers)[0] == 200


def test_nonces_are_remembered_as_long_as_they_could_be_used_and_no_longer() -> None:
    nonces, key = Nonces(2), PublicKey(ALICE.public)
    life_ms = (MAX_LIFE_S + 2 * SKEW_S) * 1000
    nonces.remember(key, "n" * 22, 0)
    nonces.remember(PublicKey(person("bob").public), "n" * 22, 0)
    with pytest.raises(ApiError, match="used"):
        nonces.remember(key, "n" * 22, life_ms)
    with pytest.raises(ApiError, match="too many"):
        nonces.remember(key, "m" * 22, life_ms)
    nonces.remember(key, "n" * 22, life_ms + 1)
    assert len(nonces) == 1


def test_a_ledger_that_remembers_too_many_nonces_asks_to_come_back(serve: Serve) -> None:
    served = serve(limits=replace(NO_LIMITS, nonces=1))
    assert served.get(PURSE, ALICE).status_code == 200
    answer: httpx.Response = served.get(PURSE, ALICE)
    assert (answer.status_code, answer.json()["error"]) == (503, "full")
    assert int(answer.headers["Retry-After"]) == SKEW_S
    # Strangers have room of their own, which they can fill.
    assert served.post("/v1/receipts", person("a session"), b"").status_code == 400
    assert served.post("/v1/receipts", person("a session"), b"").status_code == 503
