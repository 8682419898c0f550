"""Every signature that a log holds, verified in threads: libsodium lets the others run meanwhile."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Self

from nectar_protocol.command import SignedCommand
from nectar_protocol.commands import KeyPurpose, KeyState, SetKey, parse_command
from nectar_protocol.entries import BatchClosed, Genesis, HoldClosed, HoldOpened, Settled, VerdictSealed
from nectar_protocol.entry import SALT_SIZE, Body, Kind, parse_entry
from nectar_protocol.errors import ProtocolError, SignatureError
from nectar_protocol.hold import SignedHold
from nectar_protocol.identity import PublicKey

from nectar_ledger.audit.report import Finding, Report
from nectar_ledger.store.scan import Part

KEY_KIND = bytes([Kind.KEY])
Keys = frozenset[PublicKey]
Signed = tuple[int, Callable[[], None]]  # how many signatures, and what raises ProtocolError unless they are right
Checked = tuple[int, list[Finding]]  # how many signatures, and what is wrong


class Signatures:
    """Takes the log in order. What is wrong is reported as threads end, at the latest by `finish`."""

    def __init__(self, report: Report, threads: int | None = None) -> None:
        self._report, self._threads = report, threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="signatures")
        self._running: deque[Future[Checked]] = deque()
        self._holds_keys: Keys = frozenset()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def take(self, part: Part) -> None:
        holds_keys, changes = self._holds_keys, self._key_changes(part)
        self._running.append(self._pool.submit(check_part, part, holds_keys, changes))
        while len(self._running) > 2 * self._threads:
            self._collect()

    def finish(self) -> None:
        """The log has no more entries."""
        while self._running:
            self._collect()

    def _collect(self) -> None:
        signatures, findings = self._running.popleft().result()
        self._report.checked["signatures"] += signatures
        for finding in findings:
            self._report.find(finding.place, finding.message, finding.index)

    def _key_changes(self, part: Part) -> dict[int, Keys]:
        """The ledger's keys for holds from an entry on, by its index, for entries that change them."""
        changes = {}
        for index, entry in enumerate(part.entries, part.start):
            if entry[1:2] == KEY_KIND or index == 0:
                self._holds_keys = keys_after(entry, self._holds_keys)
                changes[index] = self._holds_keys
        return changes


def keys_after(entry: bytes, keys: Keys) -> Keys:
    """The keys that may sign holds behind this entry."""
    try:
        body = parse_entry(entry).body
    except ProtocolError:  # the replay reports it
        return keys
    match body:
        case Genesis(holds=key):
            return frozenset({key})
        case SignedCommand(SetKey(purpose=KeyPurpose.HOLDS, key=key, state=state)):
            return keys | {key} if state is KeyState.ACTIVE else keys - {key}
    return keys


def check_part(part: Part, holds_keys: Keys, changes: dict[int, Keys]) -> Checked:
    """Verify all signatures in a part of a log. `holds_keys` are those before it, `changes` those after its entries."""
    signatures, findings = 0, []
    for index, entry in enumerate(part.entries, part.start):
        holds_keys = changes.get(index, holds_keys)
        try:
            for count, check in signed_in(parse_entry(entry).body, part.sealed.get(index), holds_keys):
                signatures += count
                check()
        except ProtocolError as error:
            findings.append(Finding("signature", str(error), index))
    return signatures, findings


def signed_in(body: Body, sealed: bytes | None, holds_keys: Keys) -> Iterator[Signed]:
    """What is signed in an entry and in its sealed part. Raises MalformedError for a sealed part that is none."""
    match body:
        case Settled():
            yield 2, body.receipt.verify
        case HoldOpened():
            yield 1, partial(_verify_hold, body.hold, holds_keys)
        case SignedCommand():
            yield len(body.signatures), body.verify
        case HoldClosed(asked=SignedCommand() as asked):
            yield len(asked.signatures), asked.verify
        case BatchClosed(verdicts=verdicts):
            for _, shown in verdicts:
                yield _sealed_command(shown)
    if sealed is not None and isinstance(body, HoldOpened | VerdictSealed):
        yield _sealed_command(sealed)


def _sealed_command(sealed: bytes) -> Signed:
    command = parse_command(sealed[SALT_SIZE:])
    return len(command.signatures), command.verify


def _verify_hold(signed: SignedHold, keys: Keys) -> None:
    for key in keys:
        try:
            return signed.verify(key)
        except SignatureError:
            continue
    raise SignatureError("the hold is not signed by a key that was the ledger's for holds")
