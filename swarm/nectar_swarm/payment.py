"""What an OPEN shows of who pays: the hold, and the proof that it is the opener's to use.

    hold length 2 | signed hold | salt 32 | signature 64 | receipt length 2 (0 or 344) | receipt

The session's key signs the opening, whose other fields the node knows: no field stands twice. A receipt that both have
signed lets a session that was opened here before go on from it.
"""

from dataclasses import dataclass

from nectar_protocol.codec import Reader, uint
from nectar_protocol.commitment import SALT_SIZE
from nectar_protocol.errors import MalformedError
from nectar_protocol.hold import SignedHold
from nectar_protocol.identity import SIGNATURE_SIZE, PeerID, PublicKey, parse_peer_id
from nectar_protocol.opening import Opening
from nectar_protocol.receipt import SIZE as RECEIPT_SIZE
from nectar_protocol.receipt import SignedReceipt

from nectar_swarm.messages import Open
from nectar_swarm.tensors import CODES


@dataclass(frozen=True)
class Payment:
    """`receipt` is the last of this line, if there is one."""

    hold: SignedHold
    salt: bytes
    signature: bytes
    receipt: SignedReceipt | None = None

    def pack(self) -> bytes:
        hold = self.hold.pack()
        receipt = b"" if self.receipt is None else self.receipt.pack()
        return b"".join(
            (
                uint(len(hold), 2, "hold length"),
                hold,
                self.salt,
                self.signature,
                uint(len(receipt), 2, "receipt length"),
                receipt,
            )
        )

    @classmethod
    def unpack(cls, data: bytes) -> "Payment":
        """Signatures are not verified. Raises MalformedError."""
        reader = Reader(data)
        hold = SignedHold.unpack(reader.take(reader.uint(2)))
        salt, signature = reader.take(SALT_SIZE), reader.take(SIGNATURE_SIZE)
        size = reader.uint(2)
        if size not in (0, RECEIPT_SIZE):
            raise MalformedError(f"a receipt of {size} bytes; it has {RECEIPT_SIZE}, or there is none")
        receipt = SignedReceipt.unpack(reader.take(size)) if size else None
        reader.end()
        return cls(hold, salt, signature, receipt)

    def verify(self, request: Open, node: PublicKey, link: PeerID, number: int) -> None:
        """Raises SignatureError unless the session's key has signed this opening, on this node and this link."""
        opening(request, self.hold, self.salt, node, parse_peer_id(link), number).verify(self.signature)


def opening(request: Open, hold: SignedHold, salt: bytes, node: PublicKey, link: PublicKey, number: int) -> Opening:
    """What the session's key signs for an OPEN of session `number`. Raises MalformedError."""
    return Opening(
        node, link, number, hold.hold.id, hold.hold.session, request.model, salt, request.start, request.stop,
        request.batch, CODES[request.dtype], request.max_length,
    )  # fmt: skip
