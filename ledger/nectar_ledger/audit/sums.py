"""Do the books add up? What moves is summed up once more, and not by the core.

A replay trusts the core, whose running totals are in the very rows that it gives; these take the movements alone. What
is closed is checked and forgotten. `take` is given what one part of a log has added and changed.
"""

from collections import defaultdict
from dataclasses import dataclass

from nectar_protocol.money import MILLION
from nectar_protocol.policy import Policy

from nectar_ledger.audit.replay import RowsByTable
from nectar_ledger.audit.report import Report, Supply
from nectar_ledger.core.accounts import AccountKind


@dataclass(slots=True)
class Volumes:
    """What has gone out of an account, and into it, in µcr."""

    debits: int = 0
    credits: int = 0
    kind: int | None = None


class Balances:
    """Every account is the sum of its transfers, and none but emission's falls below zero."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._accounts: dict[int, Volumes] = defaultdict(Volumes)

    def take(self, tables: RowsByTable) -> None:
        moved = self._move(tables)
        for id, kind, _, floored, debits, credits, _, closed in tables.get("accounts", ()):
            moved.discard(id)
            account = self._accounts[id]
            account.kind = kind
            if (account.debits, account.credits) != (debits, credits):
                self._find(id, f"it says −{debits} +{credits}; its transfers: −{account.debits} +{account.credits}")
            if debits > credits and (floored or kind != AccountKind.EMISSION):
                self._find(id, f"its balance is {credits - debits} µcr")
            if closed is not None:
                if debits != credits:
                    self._find(id, f"it is closed with {credits - debits} µcr in it")
                del self._accounts[id]
        for id in sorted(moved):
            self._find(id, "something has moved, and its row was not written")

    def _move(self, tables: RowsByTable) -> set[int]:
        """The accounts of this part's transfers."""
        moved = set()
        for id, debit_id, credit_id, amount_ucr, _, debit_after, credit_after in tables.get("transfers", ()):
            debit, credit = self._accounts[debit_id], self._accounts[credit_id]
            debit.debits += amount_ucr
            credit.credits += amount_ucr
            if (debit.debits, credit.credits) != (debit_after, credit_after):
                message = f"its volumes are {debit_after} and {credit_after}, not {debit.debits} and {credit.credits}"
                self._report.find(f"transfers {id}", message, id >> 8)
            moved |= {debit_id, credit_id}
        return moved

    def finish(self) -> Supply:
        """The log has no more entries."""
        sums = dict.fromkeys(AccountKind, 0)
        for id, account in self._accounts.items():
            if account.kind is None:
                self._find(id, "something has moved, and its row was never written")
            else:
                sums[AccountKind(account.kind)] += account.credits - account.debits
        if any_left := sum(sums.values()):
            self._report.find("supply", f"emitted − burned and the sum of all balances differ by {any_left} µcr")
        return Supply(
            -sums[AccountKind.EMISSION],
            sums[AccountKind.BURNED],
            sums[AccountKind.WALLET],
            sums[AccountKind.POOL],
            sums[AccountKind.HOLD],
            sums[AccountKind.BATCH],
        )

    def _find(self, id: int, message: str) -> None:
        self._report.find(f"account {id}", message)


@dataclass(slots=True)
class Settled:
    """What the settlements of a line come to."""

    units: int = 0
    paid_ucr: int = 0
    fee_ucr: int = 0
    seq: int = 0


class Lines:
    """Every line has been paid price × weight × units, rounded once, within its cap; batches have the lines' units."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._policies: dict[bytes, Policy] = {}
        self._terms: dict[int, tuple[int, Policy]] = {}  # weight and policy, by hold
        self._lines: dict[int, dict[int, Settled]] = {}  # by hold and node
        self._batches: dict[int, list[int]] = defaultdict(lambda: [0, 0])  # units and free ones

    def take(self, tables: RowsByTable) -> None:
        for *_, body in tables.get("policies", ()):
            policy = Policy.unpack(body)
            self._policies[policy.id] = policy
        for row in tables.get("holds", ()):
            self._terms[row[0]] = row[7], self._policies[row[6]]
        for row in tables.get("settlements", ()):
            self._settle(*row)
        for row in tables.get("hold_lines", ()):
            self._check_line(*row)
        for row in tables.get("holds", ()):
            if row[-1] is not None:
                del self._terms[row[0]]
                self._lines.pop(row[0], None)
        for account_id, _, _, _, _, units, free_units, _, closed in tables.get("batches", ()):
            if self._batches[account_id] != [units, free_units]:
                message = (
                    f"it says {units} units, {free_units} of them free; its settlements {self._batches[account_id]}"
                )
                self._report.find(f"batch {account_id}", message)
            if closed is not None:
                del self._batches[account_id]

    def _settle(self, index: int, hold: int, node: int, batch: int, units: int, paid_ucr: int, fee_ucr: int) -> None:
        line = self._lines.setdefault(hold, {}).setdefault(node, Settled())
        line.units += units
        line.paid_ucr += paid_ucr
        line.fee_ucr += fee_ucr
        totals = self._batches[batch]
        totals[0] += units
        if not self._terms[hold][0]:
            totals[1] += units
        if min(units, paid_ucr, fee_ucr) < 0:
            self._report.find(f"settlements {index}", "something falls that only rises", index)

    def _check_line(self, hold: int, node: int, cap: int, seq: int, units: int, *_: object) -> None:
        line = self._lines.setdefault(hold, {}).setdefault(node, Settled())
        weight, policy = self._terms[hold]
        total_ucr = units * weight * policy.price // MILLION
        paid_ucr = total_ucr * (MILLION - policy.fee_ppm) // MILLION
        due, settled = (units, paid_ucr, total_ucr - paid_ucr), (line.units, line.paid_ucr, line.fee_ucr)
        if due != settled:
            message = f"units, pay and fee are {due} by its newest receipt, and {settled} by its settlements"
            self._report.find(f"line {hold}/{node}", message)
        if units > cap or seq < line.seq:
            self._report.find(
                f"line {hold}/{node}", f"{units} units with a cap of {cap}; receipt {seq} after {line.seq}"
            )
        line.seq = seq


class Purses:
    """Every purse is the sum of its movements, and all of them together are the pool."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._balances: dict[int, int] = defaultdict(int)

    def take(self, tables: RowsByTable) -> None:
        moved = set()
        for account, index, amount_ucr, _, balance_ucr in tables.get("purse_lines", ()):
            self._balances[account] += amount_ucr
            moved.add(account)
            if self._balances[account] != balance_ucr:
                message = f"the balance is {balance_ucr} µcr there, and {self._balances[account]} by all movements"
                self._report.find(f"purse_lines {account}/{index}", message, index)
        for account, debits, credits, holds in tables.get("purses", ()):
            moved.discard(account)
            if credits - debits != self._balances[account] or debits > credits or holds < 0:
                message = (
                    f"it has {credits - debits} µcr and {holds} holds; its movements: {self._balances[account]} µcr"
                )
                self._report.find(f"purse {account}", message)
        for account in sorted(moved):
            self._report.find(f"purse {account}", "something has moved, and its row was not written")

    def finish(self, pool_ucr: int) -> None:
        """The log has no more entries, and the pool so much."""
        if sum(self._balances.values()) != pool_ucr:
            message = f"the pool has {pool_ucr} µcr, all purses together {sum(self._balances.values())}"
            self._report.find("pool", message)
