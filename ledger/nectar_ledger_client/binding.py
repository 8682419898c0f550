"""Binding a node to its payee, when their keys lie on two machines: a line of text goes from one to the other.

    request = hex of the command bind-payee | the node's signature

The node makes it; its owner completes it with the payee's key and sends it to the ledger.
"""

import secrets
from typing import Final

from nectar_protocol.command import SignedCommand
from nectar_protocol.commands import BindPayee
from nectar_protocol.errors import MalformedError
from nectar_protocol.identity import SIGNATURE_SIZE, Identity, PublicKey, verify

LIFE_MS: Final = 30 * 86_400_000


def make_request(node: Identity, payee: PublicKey, ledger: bytes, now_ms: int) -> str:
    """What a node asks its owner to sign; it is good for thirty days. Raises MalformedError if it is its own payee."""
    command = BindPayee(ledger, secrets.token_bytes(16), now_ms + LIFE_MS, node.public, payee)
    return (command.pack() + command.sign_as("node", node)).hex()


def parse_request(text: str) -> tuple[BindPayee, bytes]:
    """The command, and the node's signature, which is verified.

    Raises MalformedError for what is no request, SignatureError for one that the node has not signed.
    """
    try:
        data = bytes.fromhex(text.strip())
    except ValueError as error:
        raise MalformedError("copy the whole line that the node prints") from error
    command, signature = BindPayee.unpack(data[:-SIGNATURE_SIZE]), data[-SIGNATURE_SIZE:]
    role, _ = command.signers()
    verify(command.node, role, command.pack(), signature)
    return command, signature


def complete_request(text: str, payee: Identity) -> SignedCommand:
    """The command with both signatures, ready to be sent.

    Raises MalformedError, SignatureError, or IdentityError if the request names another payee.
    """
    command, signature = parse_request(text)
    return SignedCommand(command, (signature, command.sign_as("payee", payee)))
