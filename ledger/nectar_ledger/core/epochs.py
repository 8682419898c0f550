"""How credits come to be, and the books at the end of each epoch. After a pause one long epoch is closed, not many."""

from collections.abc import Sequence

from nectar_protocol.commands import Grant, KeyPurpose
from nectar_protocol.entries import MAX_SHARES, EmissionTo, Emitted, EpochClosed, Resumed, Share
from nectar_protocol.money import MILLION
from nectar_protocol.policy import Swarm
from nectar_protocol.record import MAX_COUNT

from nectar_ledger.core.accounts import AccountKind, Code
from nectar_ledger.core.reasons import Reason, Refused
from nectar_ledger.core.registry import check_authority
from nectar_ledger.core.state import EMISSION, POOL, State
from nectar_ledger.errors import InvariantError


def check_grant(state: State, command: Grant) -> None:
    """Raises Refused."""
    check_authority(state, command.operator, KeyPurpose.OPERATOR)
    left_ucr = min(state.rules.grants_ucr - state.ledger.granted_ucr, _mintable_ucr(state))
    if command.amount_ucr > left_ucr:
        raise Refused(Reason.WRONG_AMOUNT, f"the policy leaves {max(left_ucr, 0)} µcr for grants in this epoch")


def _mintable_ucr(state: State) -> int:
    """The books of an epoch have to hold all that was ever emitted. What this one's entries gave is not counted yet."""
    return MAX_COUNT + state.accounts[EMISSION].balance_ucr + sum(state.shares.values())


def apply_grant(state: State, command: Grant) -> None:
    check_grant(state, command)
    books = state.ledger
    books.granted_ucr += command.amount_ucr
    state.touch(books)
    state.move(state.accounts[EMISSION], state.wallet(command.account), command.amount_ucr, Code.GRANT)


def decide_epoch(state: State, now_ms: int) -> list[Emitted | EpochClosed]:
    """The entries that end an epoch, if it is over: what it emits, then its books."""
    books = state.ledger
    if not _is_over(state, now_ms):
        return []
    to, shares = emission(state)
    entries: list[Emitted | EpochClosed] = [
        Emitted(books.epoch, to, tuple(shares[i : i + MAX_SHARES])) for i in range(0, len(shares), MAX_SHARES)
    ]
    return [*entries, _closing(state, to, sum(share.amount_ucr for share in shares))]


def _is_over(state: State, now_ms: int) -> bool:
    return now_ms >= state.ledger.epoch_started_ms + state.rules.epoch_ms


def emission(state: State) -> tuple[EmissionTo, Sequence[Share]]:
    """Who gets what of an epoch that ends now.

    In a trusted swarm nodes share it by their free units, and it is at most what these are worth; in an open one, where
    receipts of free clients prove nothing, auditors get equal parts. What is nobody's is never minted.
    """
    policy = state.rules
    most_ucr = min(policy.emission_ucr, _mintable_ucr(state))
    if policy.swarm is Swarm.OPEN:
        auditors = sorted(state.active_keys(KeyPurpose.AUDITOR))
        each_ucr = most_ucr // len(auditors) if auditors else 0
        shares = [Share(key, key, 0, each_ucr) for key in auditors if each_ucr]
        return EmissionTo.PURSES, shares
    total = free_units(state)
    worth_ucr = min(most_ucr, total * policy.emission_price // MILLION)
    nodes = sorted((node for node in state.nodes.values() if node.free_units), key=lambda node: node.id)
    parts = ((node, worth_ucr * node.free_units // total) for node in nodes)
    named = [(node, node.payee.owner, part) for node, part in parts if part]
    return EmissionTo.PAYEES, [Share(node.key, owner, node.free_units, ucr) for node, owner, ucr in named if owner]


def free_units(state: State) -> int:
    """Served to the free class in the epoch that runs."""
    return sum(node.free_units for node in state.nodes.values())


def _closing(state: State, to: EmissionTo, new_ucr: int) -> EpochClosed:
    """The books once `new_ucr` more have been emitted."""
    books = state.ledger
    sums = {kind: state.balance_ucr(kind) for kind in AccountKind}
    payees_ucr, purses_ucr = (new_ucr, 0) if to is EmissionTo.PAYEES else (0, new_ucr)
    return EpochClosed(
        books.epoch,
        books.epoch_started_ms,
        min(free_units(state), MAX_COUNT),
        new_ucr - sums[AccountKind.EMISSION],
        sums[AccountKind.BURNED],
        sums[AccountKind.WALLET] + payees_ucr,
        sums[AccountKind.POOL] + purses_ucr,
        sums[AccountKind.HOLD],
        sums[AccountKind.BATCH],
    )


def apply_emitted(state: State, entry: Emitted) -> None:
    """Raises InvariantError for shares that are not due, or were given already."""
    to, shares = emission(state)
    due = {share.earner: share for share in shares}
    if entry.epoch != state.ledger.epoch or entry.to is not to or not _is_over(state, state.time_ms):
        raise InvariantError(f"entry {state.index} emits for an epoch that does not end, or to others than is due")
    for share in entry.shares:
        if due.get(share.earner) != share or share.earner in state.shares:
            raise InvariantError(f"entry {state.index} emits what is not due to {share.earner.hex()}")
        state.shares[share.earner] = share.amount_ucr
        wallet = state.wallet(share.account)
        if to is EmissionTo.PAYEES:
            state.move(state.accounts[EMISSION], wallet, share.amount_ucr, Code.EMIT)
        else:
            state.move(state.accounts[EMISSION], state.accounts[POOL], share.amount_ucr, Code.EMIT)
            state.move_purse(state.purse(wallet), share.amount_ucr, Code.EMIT)


def apply_epoch(state: State, entry: EpochClosed) -> None:
    """Raises InvariantError unless the books are right."""
    books = state.ledger
    if not _is_over(state, state.time_ms):
        raise InvariantError(f"entry {state.index} ends epoch {books.epoch} before its time")
    if state.shares.keys() != {share.earner for share in emission(state)[1]}:
        raise InvariantError(f"epoch {books.epoch} ends without all that it emits")
    if entry != _closing(state, EmissionTo.PAYEES, 0):
        raise InvariantError(f"the books of entry {state.index} are not those of its epoch")
    purses_ucr = sum(purse.balance_ucr for purse in state.purses.values())
    if not state.public and purses_ucr != entry.pool_ucr:
        raise InvariantError(f"the pool has {entry.pool_ucr} µcr, all purses together {purses_ucr}")
    state.add("epochs", _row(entry, state.index, state.time_ms))
    for node in state.nodes.values():
        if node.free_units:
            node.free_units = 0
            state.touch(node)
    state.shares.clear()
    books.epoch, books.epoch_started_ms, books.granted_ucr = books.epoch + 1, state.time_ms, 0
    state.touch(books)


def _row(entry: EpochClosed, index: int, ended_ms: int) -> tuple[object, ...]:
    return (
        entry.number, index, entry.started_ms, ended_ms, entry.free_units, entry.emitted_ucr, entry.burned_ucr,
        entry.wallets_ucr, entry.pool_ucr, entry.holds_ucr, entry.batches_ucr,
    )  # fmt: skip


def apply_resumed(state: State, entry: Resumed) -> None:
    """`state.outages` tells grace when not to run. Raises InvariantError for a time that was not the newest entry's."""
    if entry.down_from_ms != state.previous_ms:
        raise InvariantError(f"entry {state.index} says that the ledger was down from another time than the last entry")
    if entry.down_from_ms < state.time_ms:
        state.outages.append((entry.down_from_ms, state.time_ms))
        state.add("outages", (state.index, entry.down_from_ms, state.time_ms))
