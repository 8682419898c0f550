"""A public key as people write it: 64 hex digits, or the peer ID that holds it."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from nectar_protocol.identity import PublicKey


def parse_key(text: str) -> "PublicKey":
    """Raises click.UsageError for what is neither."""
    from nectar_protocol.errors import IdentityError
    from nectar_protocol.identity import parse_peer_id, public_key

    try:
        if len(text) == 64:
            return public_key(bytes.fromhex(text))
        return parse_peer_id(text)
    except (ValueError, IdentityError) as error:
        raise click.UsageError(f"{text[:80]!r} is no key: give 64 hex digits, or a peer ID (12D3…)") from error
