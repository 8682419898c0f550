"""An operator who has all keys of the ledger and writes what it likes: who reads the log finds it, or who kept an old
checkpoint does.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nectar_ledger.audit.folder import TileFolder
from nectar_ledger.audit.public import verify_public
from nectar_ledger.audit.report import Report
from nectar_ledger.audit.tree import Known, Tree
from nectar_protocol.checkpoint import Checkpoint
from nectar_protocol.command import Command, SignedCommand
from nectar_protocol.commands import ChangePayee, FundPurse, Grant, Outcome, WithdrawPurse
from nectar_protocol.entries import BatchClosed, BatchOutcome, EmissionTo, Emitted, Settled, Share
from nectar_protocol.entry import Body, pack_entry, parse_entry
from nectar_protocol.hold import Hold
from nectar_protocol.identity import Identity
from nectar_protocol.merkle import leaf_hash, tree_root
from nectar_protocol.money import settle
from nectar_protocol.receipt import SignedReceipt

from benchmarks.economy.gain import Gain, worst
from benchmarks.economy.market import HOUR_MS, ORIGIN, Market, decoded, person
from benchmarks.economy.probing import PROBED, verdict
from benchmarks.logfiles import write_log

LOOT_UCR = 10**9
CAP = 10**8  # units
CLIENT, NODE, OWNER, SESSION = person("client"), person("node"), person("owner"), person("session")
OPERATOR, AUDITOR = person("operator's friend"), person("auditor")


@dataclass(frozen=True)
class Life:
    """A ledger that has lived honestly: its entries, and what somebody has kept of it."""

    market: Market
    hold: Hold
    entries: Sequence[bytes]
    kept: Checkpoint

    def with_(self, *bodies: Body) -> list[bytes]:
        """The log, and what the operator writes behind it."""
        return [*self.entries, *(pack_entry(self.market.now_ms, body) for body in bodies)]

    def unsigned(self, kind: type[Command], **fields: object) -> SignedCommand:
        """A command in the name of somebody who has not signed it."""
        command = self.market.obey(kind, *self.signers(kind, **fields), **fields).signed.command
        return SignedCommand(command, tuple(bytes(64) for _ in command.SIGNERS))

    @staticmethod
    def signers(kind: type[Command], **fields: object) -> list[Identity]:
        known = {one.public: one for one in (CLIENT, NODE, OWNER, SESSION, OPERATOR)}
        return [known[fields[name]] for name in kind.SIGNERS]  # type: ignore[index]


def live() -> Life:
    """A client has paid a node; a batch of it was burned, the next one is open, and so is the line."""
    market = Market(replace(PROBED, batch_units=0))
    market.bind(NODE, OWNER)
    market.bind(person("friend's node"), OPERATOR)
    market.name_auditor(AUDITOR)
    market.grant(OWNER, LOOT_UCR)
    market.enrich(CLIENT, 10 * LOOT_UCR)
    hold = market.opened(CLIENT, SESSION, {NODE: CAP})
    market.must(market.settle(market.bill(hold, NODE, 1, decoded(100)), NODE, SESSION))
    (batch,) = market.state.nodes[NODE.public].batches.values()
    market.must(verdict(market, AUDITOR, NODE, batch.account.id, hold, Outcome.MISSING, bytes(32)))
    market.pass_time(2 * HOUR_MS)
    market.must(market.settle(market.bill(hold, NODE, 2, decoded(200)), NODE, SESSION))
    entries = [draft.entry for draft in market.log]
    return Life(market, hold, entries, Checkpoint(ORIGIN, len(entries), tree_root(list(map(leaf_hash, entries)))))


Forgery = Callable[[Life], list[bytes]]


def _invent_receipt(life: Life) -> list[bytes]:
    """The node has the client's money for work that neither has signed."""
    market = life.market
    receipt = market.bill(life.hold, NODE, 3, decoded(1_000))
    before = market.state.holds[life.hold.id].lines[NODE.public].units
    moved = settle(before, receipt.units, 1, market.policy.price, market.policy.fee_ppm)
    (batch,) = market.state.nodes[NODE.public].batches.values()
    hold = market.state.holds[life.hold.id].account.id
    return life.with_(Settled(hold, batch.account.id, *moved, SignedReceipt(receipt, bytes(64), bytes(64))))


def _pay_more(life: Life) -> list[bytes]:
    """The last receipt moves more than it says."""
    entry = parse_entry(life.entries[-1])
    assert isinstance(entry.body, Settled)  # as `live` ends
    body = entry.body._replace(paid_ucr=entry.body.paid_ucr + LOOT_UCR)
    return [*life.entries[:-1], pack_entry(entry.time_ms, body)]


def _grant_too_much(life: Life) -> list[bytes]:
    market, operator = life.market, life.market.operator
    amount_ucr = market.policy.grants_ucr + 1
    fields = {"operator": operator.public, "account": OPERATOR.public, "amount_ucr": amount_ucr}
    return life.with_(market.obey(Grant, operator, **fields).signed)


def _fund_for_others(life: Life) -> list[bytes]:
    return life.with_(life.unsigned(FundPurse, account=OWNER.public, amount_ucr=LOOT_UCR))


def _withdraw_for_others(life: Life) -> list[bytes]:
    return life.with_(life.unsigned(WithdrawPurse, account=CLIENT.public, amount_ucr=LOOT_UCR))


def _take_over_node(life: Life) -> list[bytes]:
    fields = {"node": NODE.public, "payee": OWNER.public, "successor": OPERATOR.public}
    return life.with_(life.unsigned(ChangePayee, **fields))


def _emit_to_friends(life: Life) -> list[bytes]:
    share = Share(OPERATOR.public, OPERATOR.public, 0, LOOT_UCR)
    return life.with_(Emitted(life.market.state.ledger.epoch, EmissionTo.PURSES, (share,)))


def _release_what_burned(life: Life) -> list[bytes]:
    def pardoned(entry: bytes) -> bytes:
        parsed = parse_entry(entry)
        if not isinstance(parsed.body, BatchClosed):
            return entry
        return pack_entry(parsed.time_ms, replace(parsed.body, outcome=BatchOutcome.RELEASED))

    return [pardoned(entry) for entry in life.entries]


def _forget_the_end(life: Life) -> list[bytes]:
    """What the last receipt moved never was."""
    return list(life.entries[:-1])


def _date_back(life: Life) -> list[bytes]:
    """Nothing but the last entry's time, which nobody has signed."""
    entry = parse_entry(life.entries[-1])
    return [*life.entries[:-1], pack_entry(entry.time_ms + 1, entry.body)]


FORGERIES: tuple[Forgery, ...] = (
    _invent_receipt, _pay_more, _grant_too_much, _fund_for_others, _withdraw_for_others, _take_over_node,
    _emit_to_friends, _release_what_burned, _forget_the_end, _date_back,
)  # fmt: skip


def forge(forgeries: Sequence[Forgery] = FORGERIES) -> Gain:
    """What is forged counts as gained if neither the log shows it nor the checkpoint that somebody has kept."""
    return worst(*(Gain(LOOT_UCR * (not noticed(life, forgery(life)))) for forgery in forgeries for life in [live()]))


def noticed(life: Life, entries: Sequence[bytes]) -> Report | None:
    """What anybody finds wrong with the log as it is now published; None if that is nothing."""
    with tempfile.TemporaryDirectory(prefix="nectar-bench-") as name:
        folder = Path(name)
        write_log(entries, ORIGIN, life.market.log_key, folder)
        report = verify_public(folder)
        tree = Tree(TileFolder(folder).find_tile, [Known(life.kept.size, life.kept.root, "kept checkpoint")], report)
        tree.take(entries)
        tree.finish()
    return report if report.found else None
