"""Requests that name who sends them: HTTP message signatures (RFC 9421), by an Ed25519 key.

    covered   @method, @authority, @target-uri, content-digest (SHA-256, also of no body)
    params    created, expires (60 s later), nonce (16 random bytes, hex), keyid (the public key, hex), tag "nectar"

A ledger takes a nonce once, so a request that is sent again is signed again. What is signed begins with a quote, and
every role of Nectar's signed objects with "nectar/": no signature of one can serve as that of the other.
"""

import secrets
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from http_message_signatures import HTTPMessageSigner
from http_message_signatures.algorithms import ED25519
from nectar_protocol.identity import Identity

TAG = "nectar"
COVERED = ("@method", "@authority", "@target-uri", "content-digest")
LIFE_S = 60
NONCE_SIZE = 16

_signer = HTTPMessageSigner(signature_algorithm=ED25519)


@dataclass
class _Message:
    method: str
    url: str
    headers: MutableMapping[str, str] = field(default_factory=dict)


def signature_headers(identity: Identity, method: str, url: str, body: bytes, now_s: int) -> dict[str, str]:
    """What to add to the headers of a request to the absolute `url`; it holds from `now_s` (Unix time) for 60 s."""
    message = _Message(method, url)
    created = datetime.fromtimestamp(now_s, UTC)
    prepared = _signer.prepare(
        message,
        key_id=identity.public.hex(),
        created=created,
        expires=created + timedelta(seconds=LIFE_S),
        nonce=secrets.token_hex(NONCE_SIZE),
        label=TAG,
        tag=TAG,
        include_alg=False,
        covered_component_ids=COVERED,
        body=body,
    )
    _signer.apply(message, prepared, identity.sign(b"", prepared.signature_base))
    return dict(message.headers)
