"""That the hold which a ledger has signed is the one that was asked for."""

from collections.abc import Callable
from typing import TypeAlias

from nectar_protocol.command import SignedCommand
from nectar_protocol.commands import ExtendHold, OpenHold
from nectar_protocol.errors import SignatureError
from nectar_protocol.hold import Hold, SignedHold
from nectar_protocol.identity import PublicKey

from nectar_ledger_client.errors import AnswerError, UntrustedError

# Raises AnswerError or UntrustedError unless the answer has the hold that it must have, or none.
CheckHold: TypeAlias = Callable[[SignedHold | None], None]


def promises_hold(signed: SignedCommand) -> bool:
    """Is the answer to this command a hold?"""
    return isinstance(signed.command, OpenHold | ExtendHold)


def hold_check(signed: SignedCommand, holds: PublicKey | None, extends: Hold | None = None) -> CheckHold:
    """What the answer to this command must have: `holds` is the ledger's key for holds.

    A revision is compared with all of the hold that it extends where that is given, else with what the command says.
    Raises ConflictError for a command that does not extend it.
    """
    match signed.command:
        case OpenHold() as command:
            expected = command.hold()
            return lambda answer: _check(answer, holds, lambda hold: hold == expected)
        case ExtendHold() as command:
            if extends is not None:
                revised = command.revised(extends)
                return lambda answer: _check(answer, holds, lambda hold: hold == revised)
            return lambda answer: _check(answer, holds, lambda hold: _says(command, hold))
    return _check_none


def _says(command: ExtendHold, hold: Hold) -> bool:
    asked = (command.ledger, command.hold, command.hold_expires_ms, command.revision, command.lines)
    return asked == (hold.ledger, hold.id, hold.expires_ms, hold.revision, hold.lines)


def _check(answer: SignedHold | None, holds: PublicKey | None, is_asked: Callable[[Hold], bool]) -> None:
    if answer is None:
        raise AnswerError("the ledger took the command, and answers without a hold: is it of another version?")
    if holds is None:
        raise ValueError("a hold cannot be checked without the ledger's key for holds")
    try:
        answer.verify(holds)
    except SignatureError as error:
        raise UntrustedError(f"the hold is not signed by the ledger's key for holds, {holds.hex()}") from error
    if not is_asked(answer.hold):
        raise UntrustedError("the ledger has signed another hold than the one that was asked for: do not use it")


def _check_none(answer: SignedHold | None) -> None:
    if answer is not None:
        raise AnswerError("the ledger answers with a hold that nobody asked for: is it of another version?")
