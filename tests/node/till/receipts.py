"""Receipts of a line that both sides have signed, for tests of what keeps them."""

from hashlib import sha256

from nectar_protocol.announcement import Profile
from nectar_protocol.identity import Identity
from nectar_protocol.receipt import Receipt, SignedReceipt, Work

NODE, SESSION = Identity.from_seed(b"n" * 32), Identity.from_seed(b"s" * 32)


def signed(line: str, seq: int, units: int = 0, final: bool = False) -> SignedReceipt:
    hold = sha256(line.encode()).digest()
    receipt = Receipt(
        hold, NODE.public, SESSION.public, bytes(32), seq, 0, 1, Profile.F32, final, Work(decode_tokens=seq), units
    )
    return SignedReceipt(receipt, receipt.sign(NODE), receipt.sign(SESSION))
