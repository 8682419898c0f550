"""Who sends a request: HTTP message signatures (RFC 9421) by an Ed25519 key, under libsodium's verification rule.

    covered   @method, @authority, @target-uri, content-digest (SHA-256, also of no body)
    params    created, expires (at most 60 s later), nonce (16 random bytes or more), keyid (public key), tag "nectar"

The body is not read here, so strangers are turned away before they send it: `Sender.check_body` does the rest. Money
moves by signed objects alone; this signs what need not be logged.
"""

import hashlib
import re
from base64 import b64decode
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from hmac import compare_digest
from threading import Lock
from typing import Any

from fastapi import Request
from http_message_signatures import (
    HTTPMessageSignaturesException,
    HTTPMessageVerifier,
    HTTPSignatureAlgorithm,
    HTTPSignatureKeyResolver,
)
from nectar_protocol.errors import SignatureError
from nectar_protocol.identity import PublicKey, verify

from nectar_ledger.api.errors import ApiError, Problem

TAG = "nectar"
COVERED = ("@method", "@authority", "@target-uri", "content-digest")
MAX_LIFE_S = 60
SKEW_S = 30
# Room for one signature and its parameters.
MAX_INPUT = 512
KEY_ID = re.compile(r"[0-9a-f]{64}")
NONCE = re.compile(r"[\x21-\x7e]{22,64}")
DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")


@dataclass(frozen=True)
class Sender:
    """Who signed a request, and the SHA-256 of the body that they signed."""

    key: PublicKey
    body_sha256: bytes

    def check_body(self, body: bytes) -> None:
        """Raises ApiError for another body."""
        self.check_sha256(hashlib.sha256(body).digest())

    def check_sha256(self, sha256: bytes) -> None:
        """The same for a body whose SHA-256 is known."""
        if not compare_digest(self.body_sha256, sha256):
            raise ApiError(Problem.UNSIGNED_REQUEST, "the body is not the one of the signed Content-Digest")


@dataclass(frozen=True)
class Signed:
    """What of a request is signed. `url` is absolute, as the sender wrote it."""

    method: str
    url: str
    headers: "Fields"


class Fields:
    """Header lines in their order, repeated ones too."""

    def __init__(self, lines: Iterable[tuple[bytes, bytes]]) -> None:
        self._lines = [(name.decode("ascii").lower(), value.decode("latin-1")) for name, value in lines]

    def items(self) -> Iterable[tuple[str, str]]:
        return self._lines

    def one(self, name: str) -> str:
        """The value of a field that stands once. Raises ApiError."""
        values = [value for key, value in self._lines if key == name]
        if len(values) != 1:
            raise ApiError(Problem.UNSIGNED_REQUEST, f"sign the request as RFC 9421 says; it has {len(values)} {name}")
        return values[0]


class Nonces:
    """Those that are not to come again yet, in the order in which they can be forgotten. For any number of threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._until_ms: OrderedDict[bytes, int] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._until_ms)

    def remember(self, key: PublicKey, nonce: str, now_ms: int) -> None:
        """Until no request that bears it can be valid. Raises ApiError if it was here, or there are too many."""
        name = hashlib.sha256(key + nonce.encode()).digest()[:16]
        with self._lock:
            while self._until_ms and next(iter(self._until_ms.values())) < now_ms:
                self._until_ms.popitem(last=False)
            if name in self._until_ms:
                raise ApiError(Problem.REPLAYED_REQUEST, "this nonce has been used: sign the request anew")
            if len(self._until_ms) >= self._most:
                raise ApiError(Problem.FULL, "too many signed requests come at once: send it again later", SKEW_S)
            self._until_ms[name] = now_ms + (MAX_LIFE_S + 2 * SKEW_S) * 1000


class Authenticator:
    """Verifies signed requests. `public_url` is where the ledger is reached, `https://HOST`; without it the Host of a
    request is believed, and one that was signed for another ledger could be replayed here.

    The nonces of keys that the ledger knows are kept apart, so that strangers, who have any number of keys, cannot use
    up their room.
    """

    def __init__(
        self,
        clock_ms: Callable[[], int],
        is_known: Callable[[PublicKey], bool],
        max_nonces: int,
        public_url: str | None = None,
    ) -> None:
        self._clock_ms, self._is_known = clock_ms, is_known
        self._public_url = public_url and public_url.rstrip("/")
        self._known, self._strangers = Nonces(max_nonces), Nonces(max_nonces)

    def verify(self, signed: Signed) -> Sender:
        """Raises ApiError unless somebody signed this request, now and once."""
        now_ms = self._clock_ms()
        if len(signed.headers.one("signature-input")) > MAX_INPUT:
            raise ApiError(Problem.UNSIGNED_REQUEST, f"Signature-Input has more than {MAX_INPUT} bytes")
        digest = DIGEST.fullmatch(signed.headers.one("content-digest"))
        if digest is None:
            raise ApiError(Problem.UNSIGNED_REQUEST, "Content-Digest is sha-256=:BASE64:, also of an empty body")
        verifier = _Verifier(now_ms)
        try:
            results = verifier.verify(signed, max_age=None, expect_tag=TAG, require_components=COVERED)
        except HTTPMessageSignaturesException as error:
            is_wrong = isinstance(error.__cause__, SignatureError)
            code = Problem.BAD_REQUEST_SIGNATURE if is_wrong else Problem.UNSIGNED_REQUEST
            raise ApiError(code, f"the request's signature: {error}"[:300]) from error
        parameters: dict[str, Any] = results[0].parameters
        key = PublicKey(bytes.fromhex(parameters["keyid"]))
        nonces = self._known if self._is_known(key) else self._strangers
        nonces.remember(key, parameters["nonce"], now_ms)
        return Sender(key, b64decode(digest[1]))

    def signed(self, request: Request) -> Signed:
        """What has to be signed of a request. Raises ApiError for one without a Host."""
        scope = request.scope
        fields = Fields(scope["headers"])
        base = self._public_url or f"{scope['scheme']}://{fields.one('host')}"
        query = scope["query_string"].decode("latin-1")
        url = base + scope["raw_path"].decode("latin-1") + (f"?{query}" if query else "")
        return Signed(scope["method"], url, fields)


class _Keys(HTTPSignatureKeyResolver):
    """A key's ID is the key."""

    def resolve_public_key(self, key_id: str) -> bytes:
        return bytes.fromhex(key_id)


class _Ed25519(HTTPSignatureAlgorithm):
    algorithm_id = "ed25519"

    def __init__(self, public_key: Any = None, private_key: Any = None, password: Any = None) -> None:
        self._public_key = public_key

    def verify(self, signature: bytes, message: bytes) -> None:
        verify(PublicKey(self._public_key), b"", message, signature)


class _Verifier(HTTPMessageVerifier):
    """At one moment of the ledger's clock. What is cheap is checked before the signature."""

    def __init__(self, now_ms: int) -> None:
        super().__init__(signature_algorithm=_Ed25519, key_resolver=_Keys())
        self._now_ms = now_ms

    def validate_created_and_expires(self, sig_input: Any, max_age: timedelta | None = None) -> None:
        parameters = sig_input.params
        if not NONCE.fullmatch(parameters.get("nonce", "")) or not KEY_ID.fullmatch(parameters.get("keyid", "")):
            raise ApiError(Problem.UNSIGNED_REQUEST, "sign with keyid, the public key in hex, and a nonce of 16 bytes")
        created_s, expires_s = parameters.get("created"), parameters.get("expires")
        if created_s is None or expires_s is None or not 0 <= expires_s - created_s <= MAX_LIFE_S:
            raise ApiError(Problem.UNSIGNED_REQUEST, f"sign with created and expires, at most {MAX_LIFE_S} s apart")
        if not (created_s - SKEW_S) * 1000 <= self._now_ms <= (expires_s + SKEW_S) * 1000:
            message = f"the request was not signed for now; at the ledger it is {self._now_ms} ms: set your clock"
            raise ApiError(Problem.CLOCK_SKEW, message)
