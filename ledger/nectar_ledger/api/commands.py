"""Signed commands: whatever moves credits, binds keys or sets rules. Each is logged as it was signed."""

import secrets

from fastapi import APIRouter, Request
from nectar_protocol.command import Command, SignedCommand
from nectar_protocol.commands import MAX_SIZE, BindPayee, Dispute, ExtendHold, OpenHold, parse_command
from nectar_protocol.entry import SALT_SIZE
from nectar_protocol.errors import SignatureError
from pydantic import BaseModel

from nectar_ledger.api.body import read_body, takes
from nectar_ledger.api.desk import AtDesk, Desk
from nectar_ledger.api.errors import Problem, refusals
from nectar_ledger.api.fields import Base64
from nectar_ledger.api.limits import address_of
from nectar_ledger.core.ledger import check_command
from nectar_ledger.core.machine import Answer, Key, Rejected
from nectar_ledger.core.orders import Obey
from nectar_ledger.core.reasons import Reason, Refused
from nectar_ledger.core.state import State
from nectar_ledger.store.reading import read_answers

NOT_OF_COMMANDS = (
    Reason.NO_LINE, Reason.WRONG_SESSION, Reason.WRONG_PROFILE, Reason.WRONG_TOTALS, Reason.WRONG_UNITS,
    Reason.OVER_CAP, Reason.LINE_FINAL,
)  # fmt: skip


class CommandAnswer(BaseModel):
    """`index` is the entry's, null if nothing had to change; `hold` is the signed hold in base64, if one was given."""

    index: int | None
    hold: Base64 | None


router = APIRouter(tags=["commands"])


@router.post(
    "/v1/commands",
    responses=refusals(
        *(reason for reason in Reason if reason not in NOT_OF_COMMANDS), Problem.MALFORMED, Problem.BAD_SIGNATURE,
        Problem.UNREGISTRABLE_KEY, Problem.TOO_SLOW, Problem.TOO_LARGE, Problem.TOO_MANY_REQUESTS, Problem.FULL,
        Problem.NOT_RECORDED, Problem.STOPPED,
    ),
    openapi_extra=takes(f"A signed command, at most {MAX_SIZE} bytes"),
)  # fmt: skip
async def post_command(request: Request, desk: AtDesk) -> CommandAnswer:
    """Obey a command. The same one sent again has the same answer; another one under its ID is a conflict."""
    body = await read_body(request, MAX_SIZE, desk.limits.body_s)
    address = address_of(request)
    checked = await desk.verify(lambda: _checked(desk, address, body))
    if isinstance(checked, Answer):
        return _answer(checked)
    (outcome,) = await desk.record([Obey(checked, secrets.token_bytes(SALT_SIZE))])
    if isinstance(outcome, Rejected):
        desk.metrics.refused.labels(outcome.code).inc()
        raise Refused(Reason(outcome.code), outcome.message)
    return _answer(outcome)


def _answer(answer: Answer) -> CommandAnswer:
    return CommandAnswer(index=answer.index, hold=answer.response or None)


def _checked(desk: Desk, address: str, body: bytes) -> SignedCommand | Answer:
    """A command that is to be obeyed, or the answer that it had. Raises ApiError, Refused, ProtocolError."""
    signed = parse_command(body)
    try:
        check_command(desk.service.state, signed.command, desk.service.clock_ms())
    except Refused as error:
        known = _known(desk, signed.command) if error.reason is Reason.COMMAND_EXPIRED else None
        if known is None:
            raise
        return known
    if is_strangers(desk.service.state, signed.command):
        desk.strangers.take(address)
    desk.take(address, None, len(signed.signatures))
    try:
        signed.verify()
    except SignatureError:
        desk.fine(address, None)
        raise
    # Not before: else anybody could use up what somebody else may send.
    desk.commands.take(next(iter(signed.command.signers().values())))
    return signed


def is_strangers(state: State, command: Command) -> bool:
    """Neither credits nor the operator's leave are needed for it, so that only the address bounds it."""
    match command:
        case OpenHold(weight=weight):
            return weight == 0
        case ExtendHold(hold=hold):
            live = state.holds.get(hold)
            return live is None or live.hold.weight == 0
        case BindPayee() | Dispute():
            return True
    return False


def _known(desk: Desk, command: Command) -> Answer | None:
    """What was answered while the command had not expired."""
    with desk.service.database.reading.begin() as connection:
        found = read_answers(connection, [command.id]).get(command.id)
    return found[1] if found is not None and found[0] == Key(command.id, command.body_hash) else None
