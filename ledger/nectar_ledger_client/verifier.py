"""The proof of an entry, checked offline: nobody is asked, and the ledger is trusted for nothing.

The file is a c2sp.org/tlog-proof whose extra data is the entry. It proves that the log's key has signed a tree in which
the entry stands, that the witnesses who are named have seen that tree, and that whoever the entry says has signed it.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from nectar_protocol.checkpoint import Checkpoint, open_checkpoint
from nectar_protocol.command import SignedCommand
from nectar_protocol.commands import parse_command
from nectar_protocol.entries import BatchClosed, Genesis, HoldClosed, HoldOpened, Settled
from nectar_protocol.entry import SALT_SIZE, Body, Entry, parse_entry
from nectar_protocol.errors import ProtocolError
from nectar_protocol.identity import PublicKey
from nectar_protocol.logproof import MAX_BYTES, LogProof
from nectar_protocol.merkle import leaf_hash
from nectar_protocol.note import NoteKey
from nectar_protocol.proofs import verify_inclusion

from nectar_ledger_client.errors import FileError, UntrustedError
from nectar_ledger_client.words import describe, when


@dataclass(frozen=True)
class Check:
    """One step, in words. `passed` is False only where nothing could be checked for want of a key."""

    name: str
    words: str
    passed: bool = True


@dataclass(frozen=True)
class Proved:
    """What a file proves: `entry` stands at `index` under `checkpoint`, which `witnesses` have cosigned."""

    index: int
    entry: Entry
    checkpoint: Checkpoint
    witnesses: tuple[str, ...]
    checks: tuple[Check, ...]
    words: str


def verify_proof_file(
    path: Path,
    log_vkey: str,
    witnesses: Collection[str] = (),
    quorum: int = 0,
    holds: PublicKey | None = None,
    report: Callable[[Check], None] = lambda check: None,
) -> Proved:
    """Check the proof in a file against the log's key and its witnesses' (vkeys), of whom `quorum` must have cosigned.

    `holds` is the ledger's key for holds, without which a hold's own signature is not checked. `report` is told of each
    step as it is done. Raises UntrustedError at the first that fails, FileError, MalformedError or IdentityError for a
    key that is none.
    """
    log, known = NoteKey.parse(log_vkey), [NoteKey.parse(witness) for witness in witnesses]
    return verify_proof(read_proof_file(path), log, known, quorum, holds, report)


def read_proof_file(path: Path) -> LogProof:
    """Raises FileError if it cannot be read, UntrustedError for what is no proof."""
    try:
        with path.open("rb") as file:
            return LogProof.unpack(file.read(MAX_BYTES + 1))
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error
    except ProtocolError as error:
        raise UntrustedError(f"{path} holds no proof of an entry: {error}") from error


def with_entry(proof: LogProof, entry: bytes) -> LogProof:
    """The proof as its file has it."""
    return replace(proof, extra=entry)


def write_proof_file(path: Path, proof: LogProof) -> None:
    """Raises FileError."""
    try:
        path.write_bytes(proof.pack())
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}") from error


def verify_proof(
    proof: LogProof,
    log: NoteKey,
    witnesses: Collection[NoteKey] = (),
    quorum: int = 0,
    holds: PublicKey | None = None,
    report: Callable[[Check], None] = lambda check: None,
) -> Proved:
    """As `verify_proof_file`, of a proof at hand. Raises UntrustedError."""
    checks: list[Check] = []

    def passed(check: Check) -> None:
        checks.append(check)
        report(check)

    try:
        entry = _entry_of(proof)
        passed(Check("entry", f"entry {proof.index} of the log, of kind {entry.kind.name.lower()}"))
        witnessed = open_checkpoint(proof.checkpoint, log, witnesses)
        checkpoint = witnessed.checkpoint
        passed(Check("checkpoint", f"{log.name} signed {checkpoint.size} entries with root {checkpoint.root.hex()}"))
        verify_inclusion(leaf_hash(proof.extra), proof.index, checkpoint.size, proof.hashes, checkpoint.root)
        passed(Check("inclusion", f"{len(proof.hashes)} hashes lead from entry {proof.index} to that root"))
        passed(_check_witnesses({key.name: time_s for key, time_s in witnessed.witnesses.items()}, quorum))
        for check in _check_signatures(entry.body, log, holds):
            passed(check)
    except ProtocolError as error:
        raise UntrustedError(f"this proves nothing: {error}") from error
    names = tuple(sorted(key.name for key in witnessed.witnesses))
    return Proved(proof.index, entry, checkpoint, names, tuple(checks), describe(entry))


def _entry_of(proof: LogProof) -> Entry:
    if not proof.extra:
        raise UntrustedError("the file proves an entry that it does not have; fetch one with: nectar audit receipt")
    return parse_entry(proof.extra)


def _check_witnesses(seen: dict[str, int | None], quorum: int) -> Check:
    if len(seen) < quorum:
        raise UntrustedError(f"{len(seen)} of the witnesses that are asked for have cosigned it; {quorum} must have")
    if not seen:
        return Check("witnesses", "none were asked for: the log may show others another tree", passed=False)
    who = ", ".join(name if time_s is None else f"{name} at {when(1000 * time_s)}" for name, time_s in seen.items())
    return Check("witnesses", f"cosigned by {who}")


def _check_signatures(body: Body, log: NoteKey, holds: PublicKey | None) -> list[Check]:
    """That whoever an entry says has signed it did. Raises SignatureError, IdentityError, MalformedError."""
    match body:
        case Settled(receipt=receipt):
            receipt.verify()
            return [Check("signatures", "the node and the session both signed the receipt")]
        case HoldOpened(hold):
            if holds is None:
                return [Check("signatures", "the ledger's own on the hold is not checked: give its key", passed=False)]
            hold.verify(holds)
            return [Check("signatures", "the ledger's key for holds signed the hold")]
        case SignedCommand():
            return [_check_command(body)]
        case HoldClosed(asked=SignedCommand() as asked):
            return [_check_command(asked)]
        case BatchClosed(verdicts=verdicts):
            return [_check_command(parse_command(sealed[SALT_SIZE:])) for _, sealed in verdicts]
        case Genesis():
            if (body.network, body.log) != (log.name, log.public):
                raise UntrustedError("this is the first entry of another log")
            return [Check("signatures", "the ledger begins with this log's key")]
    return [Check("signatures", "nobody but the log signs an entry of this kind")]


def _check_command(signed: SignedCommand) -> Check:
    signed.verify()
    return Check("signatures", f"the {signed.command.NAME} is signed by its {' and its '.join(signed.command.SIGNERS)}")
