"""How holds are opened, extended and closed."""

from itertools import islice

from nectar_protocol.command import Command, SignedCommand
from nectar_protocol.commands import CloseHold, ExtendHold, OpenHold, parse_command
from nectar_protocol.entries import CloseReason, HoldClosed, HoldOpened
from nectar_protocol.entry import unseal
from nectar_protocol.errors import ProtocolError
from nectar_protocol.hold import Hold, check_extends
from nectar_protocol.policy import Policy

from nectar_ledger.core.accounts import AccountKind, Code
from nectar_ledger.core.hold import HoldLine, LiveHold
from nectar_ledger.core.parties import Purse
from nectar_ledger.core.reasons import Reason, Refused
from nectar_ledger.core.state import POOL, State
from nectar_ledger.errors import InvariantError

MAX_OPEN_HOLDS = 10_000
MAX_CLOSED_AT_ONCE = 500


def check_open(state: State, hold: Hold, now_ms: int) -> int:
    """What the hold sets aside, in µcr. Raises Refused."""
    policy = state.rules
    if hold.policy != policy.id:
        raise Refused(Reason.UNKNOWN_POLICY, f"the policy in force is {policy.id.hex()}: read it and ask again")
    if hold.model not in state.newest_models:
        raise Refused(Reason.UNKNOWN_MODEL, "the ledger has no entry for this model: it is served unmetered")
    if hold.id in state.holds:
        raise Refused(Reason.CONFLICT, "this hold is open already")
    _check_expiry(hold, policy, now_ms)
    _check_lines(state, hold, policy)
    escrow_ucr = _escrow_ucr(hold, policy)
    if hold.weight and escrow_ucr < policy.hold_least_ucr:
        raise Refused(Reason.WRONG_AMOUNT, f"a paid hold sets aside at least {policy.hold_least_ucr} µcr")
    return escrow_ucr


def _check_expiry(hold: Hold, policy: Policy, now_ms: int) -> None:
    if not now_ms < hold.expires_ms <= now_ms + policy.hold_life_ms:
        message = f"a hold expires within {policy.hold_life_ms} ms from now, which is {now_ms} at the ledger"
        raise Refused(Reason.WRONG_EXPIRY, message)


def _check_lines(state: State, hold: Hold, policy: Policy) -> None:
    for line in hold.lines:
        if line.server not in state.nodes:
            raise Refused(Reason.UNKNOWN_NODE, f"node {line.server.hex()} is not bound to a payee")
        if not hold.weight and line.cap_units > policy.free_cap_units:
            raise Refused(Reason.WRONG_CAP, f"a free line's cap is at most {policy.free_cap_units} units")


def _escrow_ucr(hold: Hold, policy: Policy) -> int:
    try:
        return hold.escrow_ucr(policy.price)
    except ProtocolError as error:
        raise Refused(Reason.WRONG_AMOUNT, str(error)) from error


def decide_open(state: State, command: OpenHold, now_ms: int) -> Hold:
    """The hold to be signed. Raises Refused."""
    hold = command.hold()
    escrow_ucr = check_open(state, hold, now_ms)
    if hold.weight:
        _check_purse(_purse_of(state, command), escrow_ucr, opens=True)
    return hold


def decide_extend(state: State, command: ExtendHold, now_ms: int) -> Hold:
    """The revision to be signed. Raises Refused."""
    live = find(state, command.hold)
    if live.payer != command.payer:
        raise Refused(Reason.NOT_AUTHORIZED, "a hold is extended by who opened it")
    try:
        revised = command.revised(live.hold)
    except ProtocolError as error:
        raise Refused(Reason.WRONG_REVISION, str(error)) from error
    more_ucr = check_extend(state, live, revised, now_ms)
    if live.purse is not None:
        _check_purse(live.purse, more_ucr, opens=False)
    return revised


def check_extend(state: State, live: LiveHold, revised: Hold, now_ms: int) -> int:
    """What the revision sets aside in addition, in µcr. Raises Refused."""
    if now_ms > live.hold.expires_ms:
        raise Refused(Reason.HOLD_EXPIRED, "the hold has expired: open another one")
    _check_expiry(revised, live.policy, now_ms)
    _check_lines(state, revised, live.policy)
    for line in revised.lines:
        known = live.lines.get(line.server)
        if known is not None and known.final and line.cap_units != known.cap_units:
            raise Refused(Reason.WRONG_CAP, "a line with a final receipt can be raised no more")
    return _escrow_ucr(revised, live.policy) - _escrow_ucr(live.hold, live.policy)


def decide_close(state: State, signed: SignedCommand, command: CloseHold) -> list[HoldClosed]:
    """Gives back what final receipts have left; nothing if that has been done. Raises Refused."""
    live = find(state, command.hold)
    if live.hold.session != command.session:
        raise Refused(Reason.NOT_AUTHORIZED, "a hold is closed by its session's key")
    left_ucr = _left_by_final_ucr(live)
    if not left_ucr:
        return []
    return [HoldClosed(live.hold.id, live.account.id, left_ucr, CloseReason.ASKED, False, signed)]


def decide_expired(state: State, now_ms: int) -> list[HoldClosed]:
    """Of the holds whose grace is over, as many as one command closes."""
    return [
        HoldClosed(live.hold.id, live.account.id, live.account.balance_ucr, CloseReason.EXPIRED, True)
        for live in islice(state.overdue(now_ms), MAX_CLOSED_AT_ONCE)
    ]


def find(state: State, hold: bytes) -> LiveHold:
    """Raises Refused."""
    live = state.holds.get(hold)
    if live is None:
        raise Refused(Reason.UNKNOWN_HOLD, "no open hold has this ID: it was never opened, or is closed")
    return live


def apply_opened(state: State, entry: HoldOpened, sealed: bytes | None) -> SignedCommand | None:
    """Open a hold or revise it. The signed request, unless the log is replayed without its sealed parts.

    Raises Refused or InvariantError for what `decide_open` and `decide_extend` would not have made.
    """
    hold = entry.hold.hold
    if hold.ledger != state.ledger.id:
        raise InvariantError(f"the hold of entry {state.index} is another ledger's")
    signed = None if state.public else _request(state, entry, sealed)
    live = state.holds.get(hold.id)
    if live is None:
        command = None if signed is None else signed.command
        if isinstance(command, ExtendHold) or hold.revision != 1:
            raise InvariantError(f"entry {state.index} extends a hold that is not open")
        _open(state, hold, None if command is None or not hold.weight else _purse_of(state, command))
    else:
        _extend(state, live, hold)
    return signed


def _request(state: State, entry: HoldOpened, sealed: bytes | None) -> SignedCommand:
    if sealed is None:
        raise InvariantError(f"the sealed part of entry {state.index} is missing: restore it from a backup")
    signed = parse_command(unseal(sealed, entry.seal))
    command, hold = signed.command, entry.hold.hold
    if isinstance(command, OpenHold) and command.hold() == hold:
        return signed
    live = state.holds.get(hold.id)
    if isinstance(command, ExtendHold) and live and live.payer == command.payer and command.revised(live.hold) == hold:
        return signed
    raise InvariantError(f"the hold of entry {state.index} is not what was asked for")


def _open(state: State, hold: Hold, purse: Purse | None) -> None:
    escrow_ucr = check_open(state, hold, state.time_ms)
    if hold.weight and not state.public:
        _check_purse(purse, escrow_ucr, opens=True)
    account = state.open_account(AccountKind.HOLD)
    lines = {line.server: HoldLine(account.id, state.nodes[line.server], line.cap_units) for line in hold.lines}
    model, policy = state.newest_models[hold.model], state.policies[hold.policy]
    live = LiveHold(hold, account, purse, model, policy, lines, state.index)
    _set_aside(state, live, escrow_ucr)
    if purse is not None:
        purse.holds += 1
        state.touch(purse)
    state.holds[hold.id] = live
    state.watch(live)
    _touch(state, live)


def _extend(state: State, live: LiveHold, revised: Hold) -> None:
    check_extends(live.hold, revised)
    more_ucr = check_extend(state, live, revised, state.time_ms)
    state.unwatch(live)
    for line in revised.lines:
        known = live.lines.get(line.server)
        if known is None:
            live.lines[line.server] = HoldLine(live.account.id, state.nodes[line.server], line.cap_units)
        else:
            known.cap_units = line.cap_units
    live.hold, live.revised_index = revised, state.index
    _set_aside(state, live, more_ucr)
    state.watch(live)
    _touch(state, live)


def _set_aside(state: State, live: LiveHold, amount_ucr: int) -> None:
    state.move(state.accounts[POOL], live.account, amount_ucr, Code.ESCROW)
    if live.purse is not None:
        state.move_purse(live.purse, -amount_ucr, Code.ESCROW)


def _touch(state: State, live: LiveHold) -> None:
    state.touch(live.account)
    state.touch(live)
    for line in live.lines.values():
        state.touch(line)


def apply_closed(state: State, entry: HoldClosed) -> None:
    """Raises Refused or InvariantError for what would not have been decided."""
    live = find(state, entry.hold)
    due_ucr = _check_reason(state, live, entry)
    if live.account.id != entry.account or due_ucr != entry.released_ucr or not (due_ucr or entry.whole):
        raise InvariantError(f"entry {state.index} gives back {entry.released_ucr} µcr; {due_ucr} are due")
    state.move(live.account, state.accounts[POOL], due_ucr, Code.RETURN)
    if live.purse is not None:
        state.move_purse(live.purse, due_ucr, Code.RETURN)
    for line in live.lines.values():
        if line.final and not line.given_back:
            line.given_back = True
            state.touch(line)
    if entry.whole:
        _forget(state, live)


def _check_reason(state: State, live: LiveHold, entry: HoldClosed) -> int:
    """What is given back, if the reason holds. Raises InvariantError."""
    match entry.reason:
        case CloseReason.ASKED if entry.asked is not None and not entry.whole:
            command = entry.asked.command
            if isinstance(command, CloseHold) and (command.hold, command.session) == (live.hold.id, live.hold.session):
                return _left_by_final_ucr(live)
        case CloseReason.FINAL if entry.whole and live.is_final:
            return live.account.balance_ucr
        case CloseReason.EXPIRED if entry.whole and state.grace_ends_ms(live) < state.time_ms:
            return live.account.balance_ucr
    raise InvariantError(f"entry {state.index} closes a hold that is not to be closed")


def _left_by_final_ucr(live: LiveHold) -> int:
    return sum(live.left_ucr(line) for line in live.lines.values() if line.final and not line.given_back)


def _forget(state: State, live: LiveHold) -> None:
    state.unwatch(live)
    del state.holds[live.hold.id]
    if live.purse is not None:
        live.purse.holds -= 1
        state.touch(live.purse)
    state.close_account(live.account)
    state.touch(live)


def _purse_of(state: State, command: Command) -> Purse | None:
    """The purse of who asked for a hold; None if it has never been funded."""
    if not isinstance(command, OpenHold):
        return None
    wallet = state.wallets.get(command.payer)
    return None if wallet is None else state.purses.get(wallet.id)


def _check_purse(purse: Purse | None, amount_ucr: int, opens: bool) -> None:
    if purse is None or purse.balance_ucr < amount_ucr:
        has_ucr = 0 if purse is None else purse.balance_ucr
        message = f"the purse has {has_ucr} µcr and {amount_ucr} are needed: fund it, or open a free hold (weight 0)"
        raise Refused(Reason.INSUFFICIENT_FUNDS, message)
    if opens and purse.holds >= MAX_OPEN_HOLDS:
        raise Refused(Reason.TOO_MANY_HOLDS, f"{purse.holds} holds are open on this purse: close some first")
