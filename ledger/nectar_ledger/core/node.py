"""A node with its payee, and its batches: earnings that wait together until they are released or burned."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar

from nectar_protocol.commands import Verdict
from nectar_protocol.identity import PublicKey
from nectar_protocol.policy import Policy

from nectar_ledger.core.accounts import Account


class BatchState(IntEnum):
    OPEN = 1
    RELEASED = 2
    BURNED = 3


@dataclass(frozen=True, slots=True)
class Given:
    """A verdict: the index of its entry, the sealed part, and what that says."""

    index: int
    sealed: bytes
    verdict: Verdict


@dataclass(slots=True, eq=False)
class Batch:
    """Of one node's work for one model; it keeps the policy that it was opened under."""

    TABLE: ClassVar[str] = "batches"

    account: Account
    node: "Node"
    model: bytes
    policy: Policy
    opened_ms: int
    units: int = 0
    free_units: int = 0
    state: BatchState = BatchState.OPEN
    verdicts: list[Given] = field(default_factory=list)

    def row(self) -> tuple[object, ...]:
        return (
            self.account.id, self.node.id, self.model, self.policy.id, self.opened_ms, self.units, self.free_units,
            int(self.state), self.account.closed_index,
        )  # fmt: skip


@dataclass(slots=True, eq=False)
class Node:
    """A node that is bound to a payee, with its open batches by model.

    `free_units`: served to the free class in this epoch.
    """

    TABLE: ClassVar[str] = "nodes"

    id: int
    key: PublicKey
    payee: Account
    bound_index: int
    free_units: int = 0
    batches: dict[bytes, Batch] = field(default_factory=dict)

    def row(self) -> tuple[object, ...]:
        return (self.id, self.key, self.payee.id, self.bound_index, self.free_units)
