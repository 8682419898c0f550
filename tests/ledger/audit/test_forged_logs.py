"""Who has the ledger's keys can write a log that is sound in itself; an audit finds what others have not signed."""

from dataclasses import replace
from pathlib import Path

import pytest
from nectar_ledger.audit.public import verify_public
from nectar_ledger.audit.report import Report
from nectar_ledger.audit.signatures import Signatures
from nectar_ledger.audit.verify import verify
from nectar_ledger.core.machine import Draft
from nectar_ledger.store.database import Database
from nectar_ledger.store.scan import Part
from nectar_protocol.command import SignedCommand
from nectar_protocol.commands import KeyPurpose, KeyState
from nectar_protocol.entries import BatchClosed, HoldClosed, HoldOpened, Settled, VerdictSealed
from nectar_protocol.entry import Kind, pack_entry, parse_entry, seal
from nectar_protocol.hold import SignedHold
from nectar_protocol.identity import SIGNATURE_SIZE

from tests.ledger.audit_ground import Lived, flip
from tests.ledger.core.stage import NODE, SESSION, paid, stock
from tests.ledger.forge import dictate, write_folder
from tests.ledger.world import Book, World, person


def forged(draft: Draft, last: bool) -> Draft:
    """With one bit of its first signature, or of its last, another; consistent in itself."""
    entry = parse_entry(draft.entry)
    match entry.body:
        case HoldOpened() as body if last and draft.sealed is not None:
            sealed = flip(draft.sealed, len(draft.sealed) - 1)
            return Draft(pack_entry(entry.time_ms, replace(body, seal=seal(sealed))), sealed)
        case HoldOpened(hold=SignedHold(hold, signature)) as body:
            body = replace(body, hold=SignedHold(hold, flip(signature, 0)))
            return Draft(pack_entry(entry.time_ms, body), draft.sealed)
        case VerdictSealed() if draft.sealed is not None:
            sealed = flip(draft.sealed, len(draft.sealed) - 1)
            return Draft(pack_entry(entry.time_ms, VerdictSealed(seal(sealed))), sealed)
        case BatchClosed() as body:
            shown = tuple((index, flip(sealed, len(sealed) - 1)) for index, sealed in body.verdicts)
            return Draft(pack_entry(entry.time_ms, replace(body, verdicts=shown)))
        case SignedCommand(signatures=signatures):
            at = len(draft.entry) - (1 if last else len(signatures) * SIGNATURE_SIZE)
            return Draft(flip(draft.entry, at), draft.sealed)
        case Settled():
            return Draft(flip(draft.entry, len(draft.entry) - (1 if last else 2 * SIGNATURE_SIZE)))
        case HoldClosed(asked=SignedCommand()):
            return Draft(flip(draft.entry, len(draft.entry) - 1))
    return draft


def signed_indexes(drafts: list[Draft]) -> set[int]:
    """Of entries that somebody has signed, or whose sealed part somebody has."""
    return {index for index, draft in enumerate(drafts) if forged(draft, last=True) != draft}


def at_signatures(report: Report) -> set[int | None]:
    assert {finding.place for finding in report.findings} <= {"signature"}
    return {finding.index for finding in report.findings}


def with_asked_close() -> list[Draft]:
    """A log in which a session has asked for what its only final line left."""
    book = stock(Book(World()))
    hold = paid(book, both=True)
    book.do(book.world.receipt(hold, NODE, SESSION, 1, 10, final=True), book.world.close(SESSION, hold))
    return book.log


@pytest.mark.parametrize("last", [False, True])
def test_every_signature_is_verified(lived: Lived, empty: Database, last: bool) -> None:
    drafts = [forged(draft, last) for draft in lived.drafts]
    dictate(empty, drafts)
    signed = signed_indexes(lived.drafts)
    assert {Kind(lived.drafts[index].entry[1]) for index in signed} >= {
        Kind.KEY, Kind.MODEL, Kind.GRANT, Kind.PURSE, Kind.DISPUTE, Kind.HOLD, Kind.SETTLE, Kind.VERDICT,
        Kind.BATCH_CLOSE,
    }  # fmt: skip
    assert at_signatures(verify(empty)) == signed
    assert verify(empty, signatures=False).findings == []


def test_a_sessions_wish_to_close_is_verified(empty: Database) -> None:
    drafts = with_asked_close()
    dictate(empty, [*drafts[:-1], forged(drafts[-1], last=True)])
    assert at_signatures(verify(empty)) == {len(drafts) - 1}


def test_what_is_public_is_verified_by_anybody(lived: Lived, tmp_path: Path) -> None:
    drafts = [forged(draft, last=True) for draft in lived.drafts]
    write_folder([draft.entry for draft in drafts], lived.town.world.keys.log, tmp_path)
    sealed = {index for index, draft in enumerate(drafts) if draft.sealed is not None}
    assert at_signatures(verify_public(tmp_path)) == signed_indexes(lived.drafts) - sealed


def test_only_a_key_that_was_active_signs_holds() -> None:
    """The old key before it is revoked, the new one once it is set, any while several are."""
    world, new = World(), person("new holds key")
    book = stock(Book(world))
    paid(book)
    hold = book.log.pop()
    set_new, revoke_old = (
        Draft(pack_entry(book.now_ms, world.set_key(key, KeyPurpose.HOLDS, state).signed))
        for key, state in ((new, KeyState.ACTIVE), (world.keys.holds, KeyState.REVOKED))
    )
    body = parse_entry(hold.entry).body
    assert isinstance(body, HoldOpened)
    by_new = Draft(pack_entry(book.now_ms, replace(body, hold=body.hold.hold.signed(new))), hold.sealed)
    for order, wrong in (
        ([hold, set_new, revoke_old], []),
        ([set_new, hold, revoke_old], []),
        ([set_new, revoke_old, hold], [2]),
        ([by_new, set_new], [0]),
        ([set_new, by_new, revoke_old], []),
        ([set_new, revoke_old, by_new], []),
    ):
        start = len(book.log)
        assert signature_findings([*book.log, *order]) == [start + position for position in wrong]


def signature_findings(drafts: list[Draft]) -> list[int | None]:
    """In two parts, so that keys are carried from one to the next."""
    report = Report()
    with Signatures(report, threads=2) as signatures:
        for start, stop in ((0, len(drafts) - 1), (len(drafts) - 1, len(drafts))):
            sealed = {index: part for index, draft in enumerate(drafts) if (part := draft.sealed) is not None}
            signatures.take(Part(start, [draft.entry for draft in drafts[start:stop]], sealed))
        signatures.finish()
    return [finding.index for finding in report.findings]


def test_a_command_counts_once(lived: Lived, empty: Database, tmp_path: Path) -> None:
    """Its sender signed it once; the operator writes it twice, and moves the sender's credits twice."""
    fund = next(draft for draft in lived.drafts if draft.entry[1] == Kind.PURSE)
    last_ms = parse_entry(lived.drafts[-1].entry).time_ms
    again = Draft(pack_entry(last_ms, parse_entry(fund.entry).body))
    dictate(empty, [*lived.drafts, again])
    body = parse_entry(fund.entry).body
    assert isinstance(body, SignedCommand)
    due = {(f"command {body.command.id.hex()}", len(lived.drafts))}
    assert {(finding.place, finding.index) for finding in verify(empty).findings} == due
    write_folder([draft.entry for draft in (*lived.drafts, again)], lived.town.world.keys.log, tmp_path)
    assert {(finding.place, finding.index) for finding in verify_public(tmp_path).findings} == due


def test_a_hold_is_opened_once(tmp_path: Path) -> None:
    """Who pays for it a second time is sealed, so that anybody must see the repetition."""
    book = stock(Book(World()))
    hold = paid(book)
    opened = book.log[-1]
    book.do(book.world.receipt(hold, NODE, SESSION, 1, 10, final=True))
    write_folder([draft.entry for draft in (*book.log, opened)], book.world.keys.log, tmp_path)
    (finding,) = verify_public(tmp_path).findings
    assert (finding.place, finding.index) == (f"hold {hold.id.hex()}", len(book.log))
