"""What an audit looked at, and what it found wrong."""

from collections import Counter
from dataclasses import dataclass, field

from nectar_protocol.merkle import EMPTY_ROOT, Hash

MAX_FINDINGS = 1000


@dataclass(frozen=True)
class Finding:
    """`place` names a table with a row's key, a tile, a checkpoint or a file; `index` the entry that it is about."""

    place: str
    message: str
    index: int | None = None

    def __str__(self) -> str:
        entry = "" if self.index is None else f"entry {self.index}, "
        return f"{entry}{self.place}: {self.message}"


@dataclass(frozen=True)
class Supply:
    """Sums of balances in µcr at the end of the log."""

    emitted_ucr: int
    burned_ucr: int
    wallets_ucr: int
    pool_ucr: int
    holds_ucr: int
    batches_ucr: int


@dataclass
class Report:
    """`checked` counts what was looked at, by kind; `found` counts all findings, of which the first 1,000 are kept."""

    ledger: bytes | None = None
    size: int = 0
    root: Hash = EMPTY_ROOT
    supply: Supply | None = None
    checked: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    found: int = 0

    def find(self, place: str, message: str, index: int | None = None) -> None:
        self.found += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(place, message, index))
