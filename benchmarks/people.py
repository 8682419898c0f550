"""Who takes part in a ledger that is measured, and what they sign: the same keys for the same seed."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256

from nectar_protocol.announcement import Profile
from nectar_protocol.command import SignedCommand
from nectar_protocol.commands import BindPayee, FundPurse, Grant, OpenHold, PublishModel
from nectar_protocol.hold import Hold, Line, sorted_lines
from nectar_protocol.identity import Identity
from nectar_protocol.metering import Meter
from nectar_protocol.modelentry import AuditState, BlockCost, ModelEntry
from nectar_protocol.policy import EXAMPLE
from nectar_protocol.receipt import Receipt, SignedReceipt, Work

BLOCKS = 8
MODEL = ModelEntry(sha256(b"nobody's model").digest(), 1, AuditState.SHADOW, (BlockCost(1_000_000, 100),) * BLOCKS)
# A ledger's rules as they come, but for how much may be granted in an hour, and how long a hold lives.
POLICY = replace(EXAMPLE, grants_ucr=10**15, hold_life_ms=86_400_000)
GRANT_UCR = 10**13
CAP_UNITS = 10**7
TOKENS = 16  # between two receipts of a line
WEIGHT = 1
COMMAND_MS = 3_600_000


@dataclass(frozen=True)
class People:
    """`payers` pay for `holds` holds in turns, each with a line for each of `nodes` nodes, which one account owns."""

    seed: int
    nodes: int
    holds: int
    payers: int = 1

    def key(self, role: str, number: int = 0) -> Identity:
        return Identity.from_seed(sha256(f"{self.seed} {role} {number}".encode()).digest())

    def node(self, number: int) -> Identity:
        return self.key("node", number)

    def session(self, hold: int) -> Identity:
        return self.key("session", hold)

    def payer(self, hold: int) -> Identity:
        return self.key("payer", hold % self.payers)

    def beginnings(
        self, ledger: bytes, operator: Identity, publisher: Identity, now_ms: int
    ) -> Iterator[SignedCommand]:
        """What comes before any hold: the model, credits for the payers, and whom the nodes earn for."""
        expires_ms, owner = now_ms + COMMAND_MS, self.key("owner")
        yield PublishModel(ledger, new_id(), expires_ms, publisher.public, MODEL).signed(publisher)
        for number in range(self.payers):
            payer = self.payer(number)
            yield Grant(ledger, new_id(), expires_ms, operator.public, payer.public, GRANT_UCR).signed(operator)
            yield FundPurse(ledger, new_id(), expires_ms, payer.public, GRANT_UCR).signed(payer)
        for number in range(self.nodes):
            node = self.node(number)
            yield BindPayee(ledger, new_id(), expires_ms, node.public, owner.public).signed(node, owner)

    def opening(self, ledger: bytes, hold: int, now_ms: int) -> SignedCommand:
        """Asks for a hold with a line for each node."""
        payer = self.payer(hold)
        lines = sorted_lines(Line(self.node(number).public, CAP_UNITS) for number in range(self.nodes))
        return OpenHold(
            ledger, new_id(), now_ms + COMMAND_MS, payer.public, self.session(hold).public, MODEL.model, POLICY.id,
            now_ms + POLICY.hold_life_ms, WEIGHT, frozenset(Profile), lines,
        ).signed(payer)  # fmt: skip


def new_id() -> bytes:
    return secrets.token_bytes(16)


METER = Meter.of(0, BLOCKS, Profile.F32, MODEL, POLICY)


def sign_receipt(hold: Hold, node: Identity, session: Identity, seq: int) -> bytes:
    """The line's receipt number `seq`: a running total of 16 decoded tokens more than the one before."""
    tokens = seq * TOKENS
    work = Work(decode_tokens=tokens, decode_context=tokens * (tokens - 1) // 2)
    receipt = Receipt(
        hold.id, node.public, session.public, bytes(32), seq, 0, BLOCKS, Profile.F32, False, work, METER.units(work)
    )
    return SignedReceipt(receipt, receipt.sign(node), receipt.sign(session)).pack()
