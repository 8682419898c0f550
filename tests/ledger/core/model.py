"""A ledger written as plainly as it can be, to compare another with: dictionaries, and fractions that are rounded down.

It shares nothing with the core but what people sign. `do` says whether anything was recorded, or raises No.
"""

from collections import defaultdict
from fractions import Fraction
from math import floor
from typing import Any

from nectar_ledger.core.orders import Obey, Order, Resume, Settle, Tick
from nectar_protocol import commands as c
from nectar_protocol.entries import Genesis
from nectar_protocol.modelentry import AuditState
from nectar_protocol.policy import Policy, Swarm
from nectar_protocol.receipt import Receipt, Work

from tests.ledger.core.tariff import MILLION, Line, No, Opened, Pot, need


class Model:
    def __init__(self, genesis: Genesis, ledger: bytes, now_ms: int) -> None:
        self.ledger, self.policy, self.last_ms = ledger, genesis.policy, now_ms
        self.models: dict[bytes, Any] = {}
        self.wallets: dict[bytes, int] = {}
        self.purses: dict[bytes, int] = defaultdict(int)
        self.payees: dict[bytes, bytes] = {}
        self.free: dict[bytes, int] = defaultdict(int)
        self.holds: dict[bytes, Opened] = {}
        self.pots: dict[int, Pot] = {}
        self.auditors: set[bytes] = set()
        self.bodies: dict[bytes, bytes] = {}
        self.downs: list[tuple[int, int]] = []
        self.emitted = self.burned = self.granted = 0
        self.epoch, self.epoch_ms, self.accounts = 1, now_ms, 3

    def do(self, order: Order, now_ms: int) -> bool:
        match order:
            case Obey(signed):
                recorded = self.obey(signed.command, now_ms)
            case Settle(signed):
                recorded = self.settle(signed.receipt, now_ms)
            case Tick():
                recorded = self.tick(now_ms)
            case Resume():
                self.downs += [(self.last_ms, now_ms)]
                recorded = True
            case _:
                raise No
        if recorded:
            self.last_ms = now_ms
        return recorded

    def obey(self, command: Any, now_ms: int) -> bool:
        if command.id in self.bodies:
            need(self.bodies[command.id] == command.body_hash)
            return False
        need(command.ledger == self.ledger and command.expires_ms >= now_ms)
        recorded = getattr(self, command.NAME.replace("-", "_"))(command, now_ms) is not False
        if recorded:
            self.bodies[command.id] = command.body_hash
        return recorded

    def number(self) -> int:
        self.accounts += 1
        return self.accounts

    def wallet(self, key: bytes) -> None:
        if key not in self.wallets:
            self.wallets[key] = 0
            self.number()

    def publish_model(self, command: c.PublishModel, now_ms: int) -> None:
        newest = self.models.get(command.entry.model)
        need(command.entry.version == (newest.version + 1 if newest else 1))
        self.models[command.entry.model] = command.entry

    def publish_policy(self, command: c.PublishPolicy, now_ms: int) -> None:
        need(command.policy.version == self.policy.version + 1)
        self.policy = command.policy

    def set_key(self, command: c.SetKey, now_ms: int) -> bool:
        before = set(self.auditors)
        (self.auditors.add if command.state is c.KeyState.ACTIVE else self.auditors.discard)(command.key)
        return before != self.auditors

    def bind_payee(self, command: c.BindPayee, now_ms: int) -> None:
        need(command.node not in self.payees)
        self.wallet(command.payee)
        self.payees[command.node] = command.payee

    def change_payee(self, command: c.ChangePayee, now_ms: int) -> None:
        need(self.payees.get(command.node) == command.payee)
        self.wallet(command.successor)
        self.payees[command.node] = command.successor

    def grant(self, command: c.Grant, now_ms: int) -> None:
        need(self.granted + command.amount_ucr <= self.policy.grants_ucr)
        self.wallet(command.account)
        self.granted += command.amount_ucr
        self.emitted += command.amount_ucr
        self.wallets[command.account] += command.amount_ucr

    def fund_purse(self, command: c.FundPurse, now_ms: int, sign: int = 1) -> None:
        need(command.amount_ucr % self.policy.purse_step_ucr == 0)
        source = self.wallets if sign == 1 else self.purses
        need(source.get(command.account, 0) >= command.amount_ucr)
        self.wallets[command.account] -= sign * command.amount_ucr
        self.purses[command.account] += sign * command.amount_ucr

    def withdraw_purse(self, command: Any, now_ms: int) -> None:
        self.fund_purse(command, now_ms, -1)

    def dispute(self, command: c.Dispute, now_ms: int) -> None:
        need(command.node in self.payees)
        hold = self.holds.get(command.hold)
        need(hold is None or hold.request.session == command.session)

    def check_lines(self, policy: Policy, weight: int, expires_ms: int, lines: Any, now_ms: int) -> None:
        need(now_ms < expires_ms <= now_ms + policy.hold_life_ms)
        need(all(line.server in self.payees for line in lines))
        need(weight or all(line.cap_units <= policy.free_cap_units for line in lines))

    def open_hold(self, command: c.OpenHold, now_ms: int) -> None:
        policy = self.policy
        need(command.policy == policy.id and command.model in self.models)
        self.check_lines(policy, command.weight, command.hold_expires_ms, command.lines, now_ms)
        lines = {line.server: Line(line.cap_units) for line in command.lines}
        hold = Opened(0, command, self.models[command.model], policy, command.hold_expires_ms, lines)
        if command.weight:
            need(hold.balance >= policy.hold_least_ucr and self.purses[command.payer] >= hold.balance)
            self.purses[command.payer] -= hold.balance
        hold.number = self.number()
        self.holds[command.body_hash] = hold

    def extend_hold(self, command: c.ExtendHold, now_ms: int) -> None:
        hold = self.holds.get(command.hold)
        if hold is None or now_ms > hold.expires_ms or command.payer != hold.request.payer:
            raise No
        caps = {line.server: line.cap_units for line in command.lines}
        need(command.revision > hold.revision and command.hold_expires_ms >= hold.expires_ms)
        need(all(caps.get(node, 0) >= line.cap for node, line in hold.lines.items()))
        need(all(caps[node] == line.cap for node, line in hold.lines.items() if line.final))
        self.check_lines(hold.policy, hold.request.weight, command.hold_expires_ms, command.lines, now_ms)
        more = sum(map(hold.cost, caps.values())) - sum(hold.cost(line.cap) for line in hold.lines.values())
        need(self.purses[command.payer] >= more)
        self.purses[command.payer] -= more
        hold.revision, hold.expires_ms = command.revision, command.hold_expires_ms
        for node, cap in caps.items():
            hold.lines.setdefault(node, Line(cap)).cap = cap

    def close_hold(self, command: c.CloseHold, now_ms: int) -> bool:
        hold = self.holds.get(command.hold)
        if hold is None or command.session != hold.request.session:
            raise No
        return self.give_back(hold, [line for line in hold.lines.values() if line.final])

    def give_back(self, hold: Opened, lines: list[Line]) -> bool:
        amount = sum(map(hold.left, lines))
        self.purses[hold.request.payer] += amount
        if amount:
            for line in lines:
                line.returned = True
        return amount > 0

    def end(self, hold: Opened) -> None:
        self.give_back(hold, list(hold.lines.values()))
        del self.holds[hold.request.body_hash]

    def is_over(self, hold: Opened, now_ms: int) -> bool:
        at_ms, left_ms = hold.expires_ms, hold.policy.grace_ms
        for down_ms, up_ms in self.downs:
            if up_ms > at_ms and down_ms < at_ms + left_ms:
                left_ms -= max(0, down_ms - at_ms)
                at_ms = up_ms
        return now_ms > at_ms + left_ms

    def settle(self, receipt: Receipt, now_ms: int) -> bool:
        hold = self.holds.get(receipt.hold)
        if hold is None or receipt.server not in hold.lines or receipt.session != hold.request.session:
            raise No
        line = hold.lines[receipt.server]
        if receipt.seq <= line.seq:
            return False
        need(not line.final and not self.is_over(hold, now_ms))
        need(receipt.profile in hold.request.profiles and receipt.units == hold.units(receipt))
        need(line.units <= receipt.units <= line.cap)
        last = line.last
        if last is not None:
            need((last.start, last.stop, last.profile) == (receipt.start, receipt.stop, receipt.profile))
            need(all(getattr(receipt.work, name) >= getattr(last.work, name) for name in Work._fields))
        pot = next((p for p in self.pots.values() if (p.node, p.model) == (receipt.server, hold.request.model)), None)
        if pot is None:
            number = self.number()
            pot = self.pots[number] = Pot(number, receipt.server, hold.request.model, self.policy, now_ms)
        paid = hold.share(receipt.units) - hold.share(line.units)
        self.burned += hold.cost(receipt.units) - hold.cost(line.units) - paid
        pot.earned += paid
        pot.units += receipt.units - line.units
        if not hold.request.weight:
            self.free[receipt.server] += receipt.units - line.units
        line.seq, line.units, line.final, line.last = receipt.seq, receipt.units, receipt.final, receipt
        if all(other.final for other in hold.lines.values()):
            self.end(hold)
        return True

    def verdict(self, command: c.Verdict, now_ms: int) -> None:
        pot, hold = self.pots.get(command.batch), self.holds.get(command.hold)
        if pot is None or pot.node != command.node or command.auditor not in self.auditors:
            raise No
        need(len(pot.verdicts) < 64 and (hold is None or hold.request.model == pot.model))
        pot.verdicts.append(command)

    def tick(self, now_ms: int) -> bool:
        if now_ms >= self.epoch_ms + self.policy.epoch_ms:
            self.close_epoch(now_ms)
            return True
        over = [hold for hold in self.holds.values() if self.is_over(hold, now_ms)]
        ready = [(pot, burns) for pot in self.pots.values() if (burns := self.judged(pot, now_ms)) is not None]
        for hold in over:
            self.end(hold)
        for pot, burns in ready:
            if burns:
                self.burned += pot.earned
            else:
                self.wallets[self.payees[pot.node]] += pot.earned
            del self.pots[pot.number]
        return bool(over or ready)

    def judged(self, pot: Pot, now_ms: int) -> bool | None:
        """Whether the batch burns; None if it has to wait."""
        if now_ms < pot.opened_ms + pot.policy.batch_ms:
            return None
        if pot.policy.probes_ppm == 0:
            return False
        found: dict[bytes, set[c.Outcome]] = defaultdict(set)
        for verdict in pot.verdicts:
            found[verdict.evidence].add(verdict.outcome)
        again = {c.Outcome.PASSED, c.Outcome.CONFIRMED}
        if pot.units < pot.policy.batch_units or not found:
            return None
        if any(c.Outcome.FAILED in outcomes and not outcomes & again for outcomes in found.values()):
            return None
        bad = any(outcomes & {c.Outcome.CONFIRMED, c.Outcome.MISSING} for outcomes in found.values())
        return bad and self.models[pot.model].state is AuditState.ENFORCED

    def close_epoch(self, now_ms: int) -> None:
        policy, total = self.policy, sum(self.free.values())
        if policy.swarm is Swarm.OPEN:
            for key in sorted(self.auditors):
                part = policy.emission_ucr // len(self.auditors)
                self.wallet(key)
                self.purses[key] += part
                self.emitted += part
        else:
            worth = min(policy.emission_ucr, floor(Fraction(total * policy.emission_price, MILLION)))
            for node, units in self.free.items():
                part = floor(worth * Fraction(units, total)) if units else 0
                self.wallets[self.payees[node]] += part
                self.emitted += part
        self.free.clear()
        self.epoch, self.epoch_ms, self.granted = self.epoch + 1, now_ms, 0
