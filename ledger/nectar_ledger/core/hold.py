"""A session's hold as the ledger keeps it: an escrow account, and how far each line has been used."""

import struct
from dataclasses import dataclass
from typing import ClassVar

from nectar_protocol.announcement import Profile
from nectar_protocol.hold import Hold
from nectar_protocol.identity import PublicKey
from nectar_protocol.metering import Meter
from nectar_protocol.modelentry import ModelEntry
from nectar_protocol.money import charge_ucr
from nectar_protocol.policy import Policy
from nectar_protocol.receipt import Work

from nectar_ledger.core.accounts import Account
from nectar_ledger.core.node import Node
from nectar_ledger.core.parties import Purse

NOTHING = Work()
# Span, profile and work of a receipt, as they stand in its bytes 144 to 216: what the next one has to continue.
TOTALS = struct.Struct(">HHH2x7Q8x")
TOTALS_AT = slice(144, 216)


@dataclass(slots=True, eq=False)
class HoldLine:
    """What one node has been paid for. The newest receipt that counts is in entry `receipt_index`; `totals` is of it.

    `given_back`: its last receipt is final, and what it left has gone back to the pool.
    """

    TABLE: ClassVar[str] = "hold_lines"

    hold_id: int
    node: Node
    cap_units: int
    seq: int = 0
    units: int = 0
    final: bool = False
    given_back: bool = False
    receipt_index: int | None = None
    totals: bytes | None = None
    # What `totals` say.
    start: int = 0
    stop: int = 0
    profile: Profile = Profile.F32
    work: tuple[int, ...] = NOTHING
    meter: Meter | None = None

    def row(self) -> tuple[object, ...]:
        return (
            self.hold_id, self.node.id, self.cap_units, self.seq, self.units, self.final, self.given_back,
            self.receipt_index, self.totals,
        )  # fmt: skip


@dataclass(slots=True, eq=False)
class LiveHold:
    """`purse` pays; it is None in a free hold, and where the log is replayed without its sealed parts.

    `revised_index` is the entry of the newest revision.
    """

    TABLE: ClassVar[str] = "holds"

    hold: Hold
    account: Account
    purse: Purse | None
    model: ModelEntry
    policy: Policy
    lines: dict[PublicKey, HoldLine]
    revised_index: int

    @property
    def payer(self) -> PublicKey | None:
        """Whose command extends it."""
        if self.hold.weight == 0:
            return self.hold.session
        return None if self.purse is None else self.purse.account.owner

    @property
    def is_final(self) -> bool:
        """Nothing more can be settled: each line has its final receipt."""
        return all(line.final for line in self.lines.values())

    def left_ucr(self, line: HoldLine) -> int:
        """What a line has set aside and not spent."""
        weight, price = self.hold.weight, self.policy.price
        return charge_ucr(line.cap_units, weight, price) - charge_ucr(line.units, weight, price)

    def row(self) -> tuple[object, ...]:
        hold = self.hold
        return (
            self.account.id, hold.id, self.purse and self.purse.account.id, hold.session, hold.model,
            self.model.version, hold.policy, hold.weight, sum(1 << profile for profile in hold.profiles),
            hold.revision, hold.expires_ms, self.account.opened_index, self.revised_index, self.account.closed_index,
        )  # fmt: skip
