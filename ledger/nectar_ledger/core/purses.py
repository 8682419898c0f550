"""How credits move between an account's public balance and its private purse, by round amounts through the pool."""

from nectar_protocol.commands import FundPurse, WithdrawPurse

from nectar_ledger.core.accounts import Code
from nectar_ledger.core.reasons import Reason, Refused
from nectar_ledger.core.state import POOL, State


def check_fund(state: State, command: FundPurse) -> None:
    """Raises Refused."""
    _check_round(state, command.amount_ucr)
    wallet = state.wallets.get(command.account)
    has_ucr = 0 if wallet is None else wallet.balance_ucr
    if has_ucr < command.amount_ucr:
        raise Refused(Reason.INSUFFICIENT_FUNDS, f"the account has {has_ucr} µcr, not {command.amount_ucr}")


def check_withdraw(state: State, command: WithdrawPurse) -> None:
    """Raises Refused. What only the ledger knows, the purse's balance, is checked where it is known."""
    _check_round(state, command.amount_ucr)
    if state.public:
        return
    wallet = state.wallets.get(command.account)
    purse = None if wallet is None else state.purses.get(wallet.id)
    has_ucr = 0 if purse is None else purse.balance_ucr
    if has_ucr < command.amount_ucr:
        raise Refused(Reason.INSUFFICIENT_FUNDS, f"the purse has {has_ucr} µcr, not {command.amount_ucr}")


def _check_round(state: State, amount_ucr: int) -> None:
    step_ucr = state.rules.purse_step_ucr
    if amount_ucr % step_ucr:
        raise Refused(Reason.WRONG_AMOUNT, f"a purse moves multiples of {step_ucr} µcr, so that amounts tell nothing")


def apply_fund(state: State, command: FundPurse) -> None:
    check_fund(state, command)
    wallet = state.wallets[command.account]
    state.move(wallet, state.accounts[POOL], command.amount_ucr, Code.FUND)
    state.move_purse(state.purse(wallet), command.amount_ucr, Code.FUND)


def apply_withdraw(state: State, command: WithdrawPurse) -> None:
    check_withdraw(state, command)
    wallet = state.wallet(command.account)
    state.move_purse(state.purse(wallet), -command.amount_ucr, Code.WITHDRAW)
    state.move(state.accounts[POOL], wallet, command.amount_ucr, Code.WITHDRAW)
