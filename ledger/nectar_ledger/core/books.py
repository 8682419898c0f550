"""The ledger's own row: who it is, where its counters stand, and which epoch runs."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(slots=True, eq=False)
class Books:
    """`id` is the hash of the genesis; `granted_ucr` is of the epoch that runs."""

    TABLE: ClassVar[str] = "books"

    id: bytes
    network: str
    holds_key: bytes
    log_key: bytes
    next_account: int = 1
    next_node: int = 1
    epoch: int = 1
    epoch_started_ms: int = 0
    granted_ucr: int = 0

    def row(self) -> tuple[object, ...]:
        return (
            1, self.id, self.network, self.holds_key, self.log_key, self.next_account, self.next_node, self.epoch,
            self.epoch_started_ms, self.granted_ucr,
        )  # fmt: skip
