"""How a batch ends: by time alone where the policy wants no probes, else by the verdicts that auditors gave."""

from collections.abc import Iterator, Sequence
from itertools import islice

from nectar_protocol.command import SignedCommand
from nectar_protocol.commands import KeyPurpose, Outcome, Verdict, parse_command
from nectar_protocol.entries import MAX_VERDICTS, BatchClosed, BatchOutcome, VerdictSealed
from nectar_protocol.entry import unseal
from nectar_protocol.modelentry import AuditState

from nectar_ledger.core.accounts import Code
from nectar_ledger.core.node import Batch, BatchState, Given
from nectar_ledger.core.reasons import Reason, Refused
from nectar_ledger.core.registry import check_authority
from nectar_ledger.core.state import BURNED, State
from nectar_ledger.errors import InvariantError

MAX_CLOSED_AT_ONCE = 100


def check_verdict(state: State, command: Verdict) -> Batch:
    """The batch that it is on. Raises Refused."""
    check_authority(state, command.auditor, KeyPurpose.AUDITOR)
    batch = state.batches.get(command.batch)
    node = state.nodes.get(command.node)
    if batch is None or node is None or batch.node is not node:
        raise Refused(Reason.UNKNOWN_BATCH, "this node has no open batch of that number")
    if len(batch.verdicts) >= MAX_VERDICTS:
        raise Refused(Reason.BATCH_FULL, f"the batch has {MAX_VERDICTS} verdicts already")
    live = state.holds.get(command.hold)
    if live is not None and live.hold.model != batch.model:
        raise Refused(Reason.UNKNOWN_BATCH, "the hold is for another model than the batch")
    return batch


def apply_verdict(state: State, entry: VerdictSealed, sealed: bytes | None) -> SignedCommand | None:
    """The verdict, unless the log is replayed without its sealed parts: they are shown when their batch closes."""
    state.seals[state.index] = entry.seal
    if state.public:
        return None
    if sealed is None:
        raise InvariantError(f"the sealed part of entry {state.index} is missing: restore it from a backup")
    signed = parse_command(unseal(sealed, entry.seal))
    verdict = _as_verdict(signed)
    batch = check_verdict(state, verdict)
    batch.verdicts.append(Given(state.index, sealed, verdict))
    state.add("verdicts", (state.index, batch.account.id, batch.node.id, int(verdict.outcome), sealed))
    return signed


def _as_verdict(signed: SignedCommand) -> Verdict:
    if not isinstance(signed.command, Verdict):
        raise InvariantError(f"a {signed.command.NAME} is sealed where a verdict should be")
    return signed.command


def decide_due(state: State, now_ms: int) -> list[BatchClosed]:
    """Of the batches that may be closed, as many as one command closes."""
    return list(islice(_due(state, now_ms), MAX_CLOSED_AT_ONCE))


def _due(state: State, now_ms: int) -> Iterator[BatchClosed]:
    for batch in state.batches.values():
        outcome = _outcome(state, batch, [given.verdict for given in batch.verdicts], now_ms)
        if outcome is not None:
            verdicts = tuple((given.index, given.sealed) for given in batch.verdicts)
            yield BatchClosed(batch.account.id, outcome, batch.account.balance_ucr, verdicts)


def _outcome(state: State, batch: Batch, verdicts: Sequence[Verdict], now_ms: int) -> BatchOutcome | None:
    """None while it has to wait."""
    policy = batch.policy
    if now_ms < batch.opened_ms + policy.batch_ms:
        return None
    if not policy.probes_ppm:
        return BatchOutcome.RELEASED
    if batch.units < policy.batch_units or not verdicts or _unconfirmed(verdicts):
        return None
    enforced = state.newest_models[batch.model].state is AuditState.ENFORCED
    condemned = any(verdict.outcome in (Outcome.CONFIRMED, Outcome.MISSING) for verdict in verdicts)
    return BatchOutcome.BURNED if condemned and enforced else BatchOutcome.RELEASED


def _unconfirmed(verdicts: Sequence[Verdict]) -> bool:
    """A failure waits for a second look at the same evidence."""
    failed = {verdict.evidence for verdict in verdicts if verdict.outcome is Outcome.FAILED}
    judged = {verdict.evidence for verdict in verdicts if verdict.outcome in (Outcome.PASSED, Outcome.CONFIRMED)}
    return bool(failed - judged)


def apply_closed(state: State, entry: BatchClosed) -> None:
    """Raises InvariantError for what `decide_due` would not have made."""
    batch = state.batches.get(entry.account)
    if batch is None or batch.account.balance_ucr != entry.amount_ucr:
        raise InvariantError(f"entry {state.index} closes no open batch, or not with what is in it")
    verdicts = [_shown(state, index, sealed) for index, sealed in entry.verdicts]
    if not state.public and [given.index for given in batch.verdicts] != [index for index, _ in entry.verdicts]:
        raise InvariantError(f"entry {state.index} leaves out a verdict")
    if not all(_is_on(state, batch, verdict) for verdict in verdicts):
        raise InvariantError(f"entry {state.index} shows a verdict on another batch, or not of an auditor")
    if _outcome(state, batch, verdicts, state.time_ms) is not entry.outcome:
        raise InvariantError(f"the batch of entry {state.index} is not to be {entry.outcome.name.lower()}")
    node = batch.node
    released = entry.outcome is BatchOutcome.RELEASED
    target, code = (node.payee, Code.RELEASE) if released else (state.accounts[BURNED], Code.BURN)
    state.move(batch.account, target, entry.amount_ucr, code)
    batch.state = BatchState.RELEASED if released else BatchState.BURNED
    del state.batches[batch.account.id], node.batches[batch.model]
    state.close_account(batch.account)
    state.touch(batch)


def _is_on(state: State, batch: Batch, verdict: Verdict) -> bool:
    """What can be said of it when it is shown: its auditor's key may have been revoked since."""
    known = (verdict.auditor, KeyPurpose.AUDITOR) in state.keys
    return known and (verdict.ledger, verdict.node, verdict.batch) == (
        state.ledger.id,
        batch.node.key,
        batch.account.id,
    )


def _shown(state: State, index: int, sealed: bytes) -> Verdict:
    """A verdict as its batch's closing shows it. Raises InvariantError unless it is what was sealed."""
    if index not in state.seals:
        raise InvariantError(f"entry {index} is no verdict that still has to be shown")
    return _as_verdict(parse_command(unseal(sealed, state.seals.pop(index))))
