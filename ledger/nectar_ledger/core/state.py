"""All that the ledger knows, in memory: what is open, who takes part, and the rows that the newest entries changed."""

from collections.abc import Iterable, Iterator
from typing import Protocol

from nectar_protocol.announcement import Profile
from nectar_protocol.commands import KeyPurpose, KeyState
from nectar_protocol.identity import PublicKey
from nectar_protocol.metering import Meter
from nectar_protocol.modelentry import ModelEntry
from nectar_protocol.policy import Policy

from nectar_ledger.core.accounts import MAX_VOLUME, Account, AccountKind, Code, check_posting
from nectar_ledger.core.books import Books
from nectar_ledger.core.hold import LiveHold
from nectar_ledger.core.node import Batch, Node
from nectar_ledger.core.parties import OperatorKey, Purse
from nectar_ledger.core.reasons import Reason, Refused
from nectar_ledger.errors import InvariantError

Row = tuple[object, ...]
MINUTE_MS = 60_000
MAX_TRANSFERS = 256
EMISSION, BURNED, POOL = 1, 2, 3


class Kept(Protocol):
    """What has a row of its own in a table."""

    @property
    def TABLE(self) -> str: ...

    def row(self) -> Row: ...


class State:
    """`books` is None before the genesis. Closed accounts, holds and batches are forgotten here: the tables keep them.

    `public`: the log is replayed as anybody has it, without its sealed parts, so that nothing is known of purses.
    """

    def __init__(self, public: bool = False) -> None:
        self.public = public
        self.books: Books | None = None
        self.time_ms = self.previous_ms = 0
        self.index = -1
        self.accounts: dict[int, Account] = {}
        self.wallets: dict[PublicKey, Account] = {}
        self.purses: dict[int, Purse] = {}
        self.nodes: dict[PublicKey, Node] = {}
        self.keys: dict[tuple[PublicKey, KeyPurpose], OperatorKey] = {}
        self.policies: dict[bytes, Policy] = {}
        self.policy: Policy | None = None
        self.models: dict[tuple[bytes, int], ModelEntry] = {}
        self.newest_models: dict[bytes, ModelEntry] = {}
        self.holds: dict[bytes, LiveHold] = {}
        self.batches: dict[int, Batch] = {}
        # Seals of verdicts whose batches are open, by the index of their entries.
        self.seals: dict[int, bytes] = {}
        # What this epoch's emission has given already, while its entries are applied.
        self.shares: dict[PublicKey, int] = {}
        self.outages: list[tuple[int, int]] = []
        # Open holds by the minute in which their grace ends at the earliest.
        self.expiring: dict[int, dict[bytes, LiveHold]] = {}
        self._meters: dict[tuple[bytes, int, bytes, int, int, Profile], Meter] = {}
        self._ordinal = 0
        self._added: list[tuple[str, Row]] = []
        self._changed: dict[Kept, None] = {}

    def begin(self, index: int, time_ms: int) -> None:
        """The entry that is applied next. Raises InvariantError out of order, or if time falls."""
        if index != self.index + 1 or time_ms < self.time_ms:
            raise InvariantError(f"entry {index} of {time_ms} ms follows entry {self.index} of {self.time_ms} ms")
        self.index, self.previous_ms, self.time_ms, self._ordinal = index, self.time_ms, time_ms, 0

    @property
    def ledger(self) -> Books:
        """Raises Refused before the genesis."""
        if self.books is None:
            raise Refused(Reason.FOREIGN_LEDGER, "this ledger has no genesis yet: run nectar ledger init")
        return self.books

    @property
    def rules(self) -> Policy:
        """The policy that is in force."""
        if self.policy is None:
            raise InvariantError("a ledger has a policy from its genesis on")
        return self.policy

    def touch(self, kept: Kept) -> None:
        """Its row will be written as it is at the end of the group."""
        self._changed[kept] = None

    def add(self, table: str, row: Row) -> None:
        """A row that never changes."""
        self._added.append((table, row))

    def take_rows(self) -> Iterator[tuple[str, Row]]:
        """The rows that were added or changed since the last time."""
        changed, added = self._changed, self._added
        self._changed, self._added = {}, []
        for kept in changed:
            yield kept.TABLE, kept.row()
        yield from added

    def open_account(self, kind: AccountKind, owner: PublicKey | None = None) -> Account:
        books = self.ledger
        account = Account(books.next_account, kind, owner, self.index)
        books.next_account += 1
        self.accounts[account.id] = account
        if owner is not None:
            self.wallets[owner] = account
        self.touch(account)
        self.touch(books)
        return account

    def close_account(self, account: Account) -> None:
        """Raises InvariantError while there is something in it."""
        if account.balance_ucr:
            raise InvariantError(f"account {account.id} is closed with {account.balance_ucr} µcr in it")
        account.closed_index = self.index
        self.touch(account)
        del self.accounts[account.id]

    def wallet(self, key: PublicKey) -> Account:
        """The account of this key; opened when it is first named."""
        found = self.wallets.get(key)
        return self.open_account(AccountKind.WALLET, key) if found is None else found

    def purse(self, account: Account) -> Purse:
        found = self.purses.get(account.id)
        if found is None:
            found = self.purses[account.id] = Purse(account)
        return found

    def move(self, debit: Account, credit: Account, amount_ucr: int, code: Code) -> None:
        """One transfer of the entry that is applied; of nothing where the amount is 0."""
        if amount_ucr == 0:
            return
        ordinal = self._ordinal
        if amount_ucr < 0 or debit is credit or ordinal >= MAX_TRANSFERS:
            raise InvariantError(f"entry {self.index} moves {amount_ucr} µcr from {debit.id} to {credit.id}")
        debits, credits = debit.debits + amount_ucr, credit.credits + amount_ucr
        if debits > debit.credits or credits > MAX_VOLUME or debit.closed_index or credit.closed_index:
            check_posting(debit, debits, credit, credits)
        debit.debits, credit.credits, self._ordinal = debits, credits, ordinal + 1
        self._changed[debit] = self._changed[credit] = None
        id = self.index << 8 | ordinal
        row = (id, debit.id, credit.id, amount_ucr, +code, debits, credits)
        self._added.append(("transfers", row))

    def move_purse(self, purse: Purse, amount_ucr: int, code: Code) -> None:
        """A purse's private side of what the pool does in the same entry."""
        if amount_ucr == 0 or self.public:
            return
        purse.move(amount_ucr)
        self.touch(purse)
        self.add("purse_lines", (purse.account.id, self.index, amount_ucr, int(code), purse.balance_ucr))

    def meter(self, hold: LiveHold, start: int, stop: int, profile: Profile) -> Meter:
        """Raises ConflictError for blocks that the model has not."""
        key = (hold.hold.model, hold.model.version, hold.hold.policy, start, stop, profile)
        found = self._meters.get(key)
        if found is None:
            if len(self._meters) > 10_000:
                self._meters.clear()
            found = self._meters[key] = Meter.of(start, stop, profile, hold.model, hold.policy)
        return found

    def is_active(self, key: PublicKey, purpose: KeyPurpose) -> bool:
        found = self.keys.get((key, purpose))
        return found is not None and found.state is KeyState.ACTIVE

    def active_keys(self, purpose: KeyPurpose) -> list[PublicKey]:
        return [kept.key for kept in self.keys.values() if kept.purpose is purpose and kept.state is KeyState.ACTIVE]

    def grace_ends_ms(self, hold: LiveHold) -> int:
        """Until when its lines settle: grace runs only while the ledger is up."""
        begin_ms = hold.hold.expires_ms
        end_ms = begin_ms + hold.policy.grace_ms
        for down_ms, up_ms in self.outages:
            if up_ms > begin_ms and down_ms < end_ms:
                end_ms += up_ms - max(down_ms, begin_ms)
        return end_ms

    def watch(self, hold: LiveHold) -> None:
        """Have `overdue` find it. Again after its expiry changed."""
        minute = (hold.hold.expires_ms + hold.policy.grace_ms) // MINUTE_MS
        self.expiring.setdefault(minute, {})[hold.hold.id] = hold

    def unwatch(self, hold: LiveHold) -> None:
        minute = (hold.hold.expires_ms + hold.policy.grace_ms) // MINUTE_MS
        holds = self.expiring[minute]
        del holds[hold.hold.id]
        if not holds:
            del self.expiring[minute]

    def overdue(self, now_ms: int) -> Iterator[LiveHold]:
        """Open holds whose grace is over."""
        for minute in sorted(minute for minute in self.expiring if minute <= now_ms // MINUTE_MS):
            # By account, so that a state that was loaded decides in the same order.
            for hold in sorted(self.expiring[minute].values(), key=lambda hold: hold.account.id):
                if self.grace_ends_ms(hold) < now_ms:
                    yield hold

    def balance_ucr(self, kind: AccountKind, accounts: Iterable[Account] | None = None) -> int:
        """What all open accounts of a kind have together."""
        every = self.accounts.values() if accounts is None else accounts
        return sum(account.balance_ucr for account in every if account.kind is kind)
