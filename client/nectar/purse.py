"""What sessions pay from: asks the ledger for holds and for revisions of them, and funds a wallet's purse as needed.

A purse takes round amounts, so that nobody can tell from the public log what a session cost.
"""

import logging
import secrets
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass

from nectar_ledger_client.accounts import Balance
from nectar_ledger_client.accounts import Purse as PurseBalance
from nectar_ledger_client.errors import BusyError, LedgerClientError, RefusedError, UnreachableError
from nectar_protocol.announcement import Profile
from nectar_protocol.commands import CloseHold, ExtendHold, FundPurse, OpenHold
from nectar_protocol.errors import ProtocolError
from nectar_protocol.hold import SignedHold
from nectar_protocol.identity import Identity, PublicKey
from nectar_protocol.manifest import ModelID
from nectar_protocol.metering import Meter
from nectar_protocol.modelentry import ModelEntry
from nectar_protocol.money import format_credits
from nectar_protocol.receipt import SignedReceipt

from nectar.caps import Extent, Purchase
from nectar.errors import BudgetError, InsufficientFundsError, PaymentError
from nectar.ledger import COMMAND_LIFE_MS, Ledger

LIFE = 0.9  # of the longest life of a hold: clocks differ
TRIES = 4  # each of another reason
PROFILES = frozenset(Profile)

log = logging.getLogger(__name__)


class UnmeteredError(Exception):
    """There is no hold to be had for this session, which is served unmetered then. The message says why."""


@dataclass(frozen=True)
class Part:
    """What a node of a route is to do: blocks [start, stop) in its profile."""

    node: PublicKey
    start: int
    stop: int
    profile: Profile


@dataclass(frozen=True)
class Order:
    """What a session wants: its key, its model, how much, at which weight, for how much at most."""

    session: Identity
    model: ModelID
    extent: Extent
    weight: int
    budget_ucr: int


@dataclass(frozen=True)
class Bought:
    """A hold, with what units are worth under it."""

    hold: SignedHold
    entry: ModelEntry
    purchase: Purchase

    def meter(self, part: Part) -> Meter:
        """Raises ConflictError for blocks that the model has not."""
        return Meter.of(part.start, part.stop, part.profile, self.entry, self.purchase.policy)


class Purse:
    """Of a wallet, or of nobody, who can open free holds. Lives in the connection's loop."""

    def __init__(self, ledger: Ledger, wallet: Identity | None = None, *, cover: bool = True) -> None:
        self.ledger, self.wallet, self.cover = ledger, wallet, cover
        self._warned = False

    async def learn(self, model: ModelID) -> None:
        """What must be known of the ledger before it can be asked. Nothing, where it does not answer."""
        if not self.ledger.is_down:
            try:
                await self.ledger.learn(model)
            except LedgerClientError as error:
                self._on_down(error)

    def _on_down(self, error: LedgerClientError) -> None:
        self.ledger.went_down()
        self.warn("the ledger gives no holds now; sessions are served unmetered, in the free class", error)

    async def open(self, order: Order, parts: list[Part]) -> Bought:
        """A hold with a line for each part whose node can have one.

        Raises UnmeteredError, InsufficientFundsError, BudgetError or PaymentError.
        """
        try:
            bought = await self._open(order, parts)
        except (UnreachableError, BusyError) as error:
            self._on_down(error)
            raise UnmeteredError(str(error)) from error
        except (LedgerClientError, ProtocolError) as error:
            if order.weight:
                raise PaymentError(f"no hold for this session: {error}") from error
            self.warn("sessions are served unmetered", error)
            raise UnmeteredError(str(error)) from error
        self._warned = False
        return bought

    def warn(self, what: str, error: object) -> None:
        """Once, until a hold is had again."""
        if not self._warned:
            log.warning("%s: %s", what, error)
            self._warned = True

    async def _open(self, order: Order, parts: list[Part]) -> Bought:
        if self.ledger.is_down:
            raise UnreachableError("it did not answer lately")
        for _ in range(TRIES):
            await self.ledger.learn(order.model)
            entry, policy = self.ledger.model(order.model), self.ledger.policy
            if entry is None or policy is None:
                raise UnmeteredError("the ledger has no entry for this model")
            purchase = Purchase(order.weight, policy, order.budget_ucr)
            wanted = {
                part.node: purchase.wanted(Meter.of(part.start, part.stop, part.profile, entry, policy), order.extent)
                for part in parts
                if self.ledger.may_be_bound(part.node)
            }
            lines = purchase.lines(wanted)
            if not lines:
                _check_budget(order, bool(wanted))
                raise UnmeteredError("no node of the route can have a line")
            payer = self._payer(order)
            command = OpenHold(
                self._ledger_id, secrets.token_bytes(16), self.ledger.now_ms + COMMAND_LIFE_MS, payer.public,
                order.session.public, order.model, policy.id, self.expiry_ms(purchase), order.weight, PROFILES, lines,
            )  # fmt: skip
            try:
                answer = await self.ledger.client.send_command(command.signed(payer))
            except RefusedError as error:
                await self._mend(error, order, list(wanted), command.hold().escrow_ucr(policy.price))
                continue
            assert answer.hold is not None
            return Bought(answer.hold, entry, purchase)
        raise PaymentError("the ledger refuses one hold after the other; try again")

    async def extend(self, bought: Bought, session: Identity, wanted: Mapping[PublicKey, int]) -> Bought:
        """A revision with a later expiry, new lines and higher caps, as far as the budget goes.

        Raises LedgerClientError, ProtocolError, InsufficientFundsError.
        """
        old, purchase = bought.hold.hold, bought.purchase
        payer = session if not old.weight or self.wallet is None else self.wallet
        for attempt in range(TRIES):
            usable = {node: cap for node, cap in wanted.items() if self.ledger.may_be_bound(node)}
            lines = purchase.raised(old, usable)
            command = ExtendHold(
                old.ledger, secrets.token_bytes(16), self.ledger.now_ms + COMMAND_LIFE_MS, payer.public, old.id,
                max(old.expires_ms, self.expiry_ms(purchase)), old.revision + 1, lines,
            )  # fmt: skip
            try:
                answer = await self.ledger.client.send_command(command.signed(payer), old)
            except RefusedError as error:
                if attempt + 1 == TRIES:
                    raise
                price = purchase.policy.price
                more_ucr = command.revised(old).escrow_ucr(price) - old.escrow_ucr(price)
                await self._mend(error, None, list(usable), more_ucr)
                continue
            assert answer.hold is not None
            return Bought(answer.hold, bought.entry, purchase)
        raise AssertionError("unreachable")

    async def close(self, session: Identity, hold: SignedHold, receipts: list[SignedReceipt], is_whole: bool) -> None:
        """Settle a session's final receipts, so that what they leave goes back at once. Raises LedgerClientError."""
        if receipts:
            await self.ledger.in_time(lambda: self.ledger.client.send_receipts(session, receipts))
        if not is_whole:
            command = CloseHold(
                hold.hold.ledger, secrets.token_bytes(16), self.ledger.now_ms + COMMAND_LIFE_MS, session.public,
                hold.hold.id,
            )  # fmt: skip
            await self.ledger.client.send_command(command.signed(session))

    def expiry_ms(self, purchase: Purchase) -> int:
        """As late as a hold's may be."""
        return self.ledger.now_ms + int(purchase.policy.hold_life_ms * LIFE)

    @property
    def _ledger_id(self) -> bytes:
        id = self.ledger.id
        assert id is not None
        return id

    def _payer(self, order: Order) -> Identity:
        if not order.weight:
            return order.session
        if self.wallet is None:
            raise PaymentError("a session with a weight is paid from a wallet: give wallet=, or weight 0")
        return self.wallet

    async def _mend(self, error: RefusedError, order: Order | None, nodes: list[PublicKey], needed_ucr: int) -> None:
        """Make good what the ledger refused a hold for, or raise the refusal."""
        match error.code:
            case "unknown-node":
                await self.ledger.look_up(nodes)
            case "unknown-policy" if order is not None:
                await self.ledger.renew_policy()
            case "unknown-model" if order is not None:
                self.ledger.forget_model(order.model)
            case "wrong-expiry" | "command-expired":
                self.ledger.set_clock(error)
            case "insufficient-funds" if self.wallet is not None:
                await self.fund(self.wallet, needed_ucr)
            case _:
                raise error

    async def fund(self, wallet: Identity, needed_ucr: int) -> None:
        """See to it that the purse has so much, by a round amount. Raises InsufficientFundsError, LedgerClientError."""
        client, policy = self.ledger.client, self.ledger.policy
        assert policy is not None
        has_ucr = await _or_nothing(self.ledger.in_time(lambda: client.purse(wallet)))
        step = policy.purse_step_ucr
        amount_ucr = -(-max(1, needed_ucr - has_ucr) // step) * step
        balance_ucr = await _or_nothing(client.balance(wallet.public))
        if balance_ucr < amount_ucr:
            raise InsufficientFundsError(
                f"this session sets {format_credits(needed_ucr)} credits aside; your purse has "
                f"{format_credits(has_ucr)}, your account {format_credits(balance_ucr)}, and it moves multiples of "
                f"{format_credits(step)}: earn more by serving, lower max_length, weight or budget, or use weight 0"
            )
        command = FundPurse(
            self._ledger_id, secrets.token_bytes(16), self.ledger.now_ms + COMMAND_LIFE_MS, wallet.public, amount_ucr
        )
        await client.send_command(command.signed(wallet))


async def _or_nothing(asked: Awaitable[Balance | PurseBalance]) -> int:
    """A balance; 0 where the ledger does not know the account."""
    try:
        return (await asked).balance_ucr
    except RefusedError as error:
        if not error.is_not_found:
            raise
        return 0


def _check_budget(order: Order, has_nodes: bool) -> None:
    if order.weight and has_nodes:
        raise BudgetError(f"a budget of {format_credits(order.budget_ucr)} credits pays for nothing: raise it")
