"""A hold that a ledger has signed is the one that was asked for, or it is not used."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from nectar_ledger_client import calls
from nectar_ledger_client.answers import CommandAnswer
from nectar_ledger_client.errors import AnswerError, UntrustedError
from nectar_ledger_client.promise import hold_check, promises_hold
from nectar_protocol.commands import ExtendHold, OpenHold
from nectar_protocol.errors import ConflictError
from nectar_protocol.hold import Hold, Line, SignedHold
from nectar_protocol.textual import to_base64

from tests.ledger.world import START_MS, World, person

NODE, OTHER, SESSION = person("node"), person("other"), person("session")
HOLDS = person("holds")

world = World()
opening = world.open_hold(SESSION, SESSION, {NODE: 1000}, START_MS + 1000).signed
assert isinstance(opening.command, OpenHold)
hold = opening.command.hold()
extension = world.extend(SESSION, hold, {NODE: 2000}, START_MS + 2000).signed
assert isinstance(extension.command, ExtendHold)
revised = extension.command.revised(hold)


def answered(answer: SignedHold | None, extends: Hold | None = None, of: object = opening) -> CommandAnswer:
    signed = opening if of is opening else extension
    call = calls.command(signed, hold_check(signed, HOLDS.public, extends))
    packed = "null" if answer is None else f'"{to_base64(answer.pack())}"'
    return call.parse(f'{{"index": 5, "hold": {packed}}}'.encode())


def test_the_hold_that_was_asked_for_is_the_answer() -> None:
    signed = hold.signed(HOLDS)
    assert answered(signed) == CommandAnswer(5, signed)
    assert answered(revised.signed(HOLDS), hold, extension).hold == revised.signed(HOLDS)
    assert answered(revised.signed(HOLDS), None, extension).hold == revised.signed(HOLDS)


CHANGES: list[Callable[[Hold], Hold]] = [
    lambda hold: replace(hold, ledger=bytes(32)),
    lambda hold: replace(hold, id=bytes(32)),
    lambda hold: replace(hold, session=OTHER.public),
    lambda hold: replace(hold, model=bytes(32)),
    lambda hold: replace(hold, policy=bytes(32)),
    lambda hold: replace(hold, expires_ms=hold.expires_ms - 1),
    lambda hold: replace(hold, revision=hold.revision + 1),
    lambda hold: replace(hold, weight=8),
    lambda hold: replace(hold, profiles=frozenset(list(hold.profiles)[:1])),
    lambda hold: replace(hold, lines=(Line(NODE.public, 1),)),
    lambda hold: replace(hold, lines=(Line(OTHER.public, 1000),)),
]


@pytest.mark.parametrize("change", CHANGES)
def test_any_other_hold_that_the_ledger_signs_is_refused(change: Callable[[Hold], Hold]) -> None:
    with pytest.raises(UntrustedError, match="another hold"):
        answered(change(hold).signed(HOLDS))
    with pytest.raises(UntrustedError, match="another hold"):
        answered(change(revised).signed(HOLDS), hold, extension)


def test_a_hold_of_another_key_is_refused() -> None:
    with pytest.raises(UntrustedError, match="not signed"):
        answered(hold.signed(person("somebody")))


def test_a_hold_that_is_missing_or_that_nobody_asked_for_is_no_answer() -> None:
    with pytest.raises(AnswerError, match="without a hold"):
        answered(None)
    signed = world.fund(SESSION, 1000).signed
    call = calls.command(signed, hold_check(signed, None))
    assert call.parse(b'{"index": null, "hold": null}') == CommandAnswer(None, None)
    packed = to_base64(hold.signed(HOLDS).pack())
    with pytest.raises(AnswerError, match="nobody asked"):
        call.parse(f'{{"index": 5, "hold": "{packed}"}}'.encode())


def test_what_does_not_extend_a_hold_is_not_even_sent() -> None:
    with pytest.raises(ConflictError):
        hold_check(extension, HOLDS.public, replace(hold, id=bytes(32)))


def test_only_two_commands_are_answered_with_a_hold() -> None:
    assert promises_hold(opening)
    assert promises_hold(extension)
    assert not promises_hold(world.fund(SESSION, 1000).signed)
