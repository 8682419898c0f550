"""The calls of a ledger's API, one function each: what is asked, and how the answer is read and checked.

Keys, IDs and hashes are bytes here and hex on the wire. Every call may be repeated (see `retries`).
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from nectar_protocol.announcement import Announcement
from nectar_protocol.command import SignedCommand
from nectar_protocol.errors import ProtocolError, SignatureError
from nectar_protocol.hold import SignedHold
from nectar_protocol.identity import Identity, PublicKey
from nectar_protocol.modelentry import ModelEntry
from nectar_protocol.policy import Policy
from nectar_protocol.receipt import SignedReceipt

from nectar_ledger_client.accounts import Balance, Purse, PurseLine, StatementLine
from nectar_ledger_client.answers import CommandAnswer, Epoch, LedgerInfo, LoggedEntry, ReceiptAnswer, SupplyNow
from nectar_ledger_client.call import Call
from nectar_ledger_client.errors import AnswerError, UntrustedError
from nectar_ledger_client.fields import Fields
from nectar_ledger_client.page import Cursor, Page
from nectar_ledger_client.promise import CheckHold
from nectar_ledger_client.work import Batch, HoldView, JudgedBatch, NodeView, Settlement

T = TypeVar("T")

MAX_RECEIPTS: Final = 1000
MAX_EVIDENCE_BYTES: Final = 64 << 20


def ledger() -> Call[LedgerInfo]:
    return _get("/v1/ledger", LedgerInfo.read)


def command(signed: SignedCommand, check: CheckHold) -> Call[CommandAnswer]:
    """Send a command; `check` is what `hold_check` says of the answer."""

    def read(fields: Fields) -> CommandAnswer:
        packed = fields.optional("hold", fields.blob)
        hold = None if packed is None else fields.packed("hold", lambda: SignedHold.unpack(packed))
        check(hold)
        return CommandAnswer(fields.optional("index", fields.index), hold)

    return _post("/v1/commands", read, signed.pack())


def receipts(sender: Identity, batch: Sequence[SignedReceipt]) -> Call[list[ReceiptAnswer]]:
    """Send 1 to 1,000 receipts of the sender's own, as node or as session. Answers stand in their order."""
    if not 0 < len(batch) <= MAX_RECEIPTS:
        raise ValueError(f"{len(batch)} receipts; one call takes 1 to {MAX_RECEIPTS}")

    def read(fields: Fields) -> list[ReceiptAnswer]:
        found = [ReceiptAnswer.read(item) for item in fields.children("results", len(batch))]
        if len(found) != len(batch):
            raise AnswerError(f"{len(found)} answers to {len(batch)} receipts: is this ledger of another version?")
        return found

    return _post("/v1/receipts", read, b"".join(one.pack() for one in batch), sender)


def policy(id: bytes | None = None) -> Call[Policy]:
    """The policy in force, or the one with this ID, which its content must have."""

    def read(fields: Fields) -> Policy:
        found = _unpack(fields, Policy.unpack)
        if id is not None and found.id != id:
            raise UntrustedError(f"asked for policy {id.hex()}, the ledger answers with {found.id.hex()}")
        return found

    return _get("/v1/policy" if id is None else f"/v1/policies/{id.hex()}", read)


def policies(cursor: Cursor) -> Call[Page[Policy]]:
    """All versions there were."""
    return _page("/v1/policies", lambda fields: _unpack(fields, Policy.unpack), cursor)


def models(cursor: Cursor) -> Call[Page[ModelEntry]]:
    """The newest version of each model's entry."""
    return _page("/v1/models", lambda fields: _unpack(fields, ModelEntry.unpack), cursor)


def model(model: bytes, version: int | None = None) -> Call[ModelEntry]:
    """This model's entry: its newest version, or the one asked for."""

    def read(fields: Fields) -> ModelEntry:
        found = _unpack(fields, ModelEntry.unpack)
        if found.model != model or version not in (None, found.version):
            raise UntrustedError(f"asked for model {model.hex()}, the ledger answers with another, or another version")
        return found

    params = {} if version is None else {"version": str(version)}
    return Call(f"/v1/models/{model.hex()}", lambda data: read(Fields.parse(data)), params=params)


def balance(account: PublicKey) -> Call[Balance]:
    return _get(f"/v1/accounts/{account.hex()}", Balance.read)


def statement(account: PublicKey, cursor: Cursor) -> Call[Page[StatementLine]]:
    return _page(f"/v1/accounts/{account.hex()}/statement", StatementLine.read, cursor)


def nodes_of(account: PublicKey, cursor: Cursor) -> Call[Page[NodeView]]:
    """Nodes whose earnings go to this account."""
    return _page(f"/v1/accounts/{account.hex()}/nodes", NodeView.read, cursor)


def purse(owner: Identity) -> Call[Purse]:
    return _get(f"/v1/accounts/{owner.public.hex()}/purse", Purse.read, owner)


def purse_statement(owner: Identity, cursor: Cursor) -> Call[Page[PurseLine]]:
    return _page(f"/v1/accounts/{owner.public.hex()}/purse/statement", PurseLine.read, cursor, owner)


def holds_of(owner: Identity, cursor: Cursor) -> Call[Page[HoldView]]:
    """The holds that an account's purse paid for."""
    return _page(f"/v1/accounts/{owner.public.hex()}/holds", HoldView.read, cursor, owner)


def hold(id: bytes) -> Call[HoldView]:
    return _get(f"/v1/holds/{id.hex()}", HoldView.read)


def nodes(cursor: Cursor) -> Call[Page[NodeView]]:
    return _page("/v1/nodes", NodeView.read, cursor)


def node(key: PublicKey) -> Call[NodeView]:
    return _get(f"/v1/nodes/{key.hex()}", NodeView.read)


def batches_of(node: PublicKey, cursor: Cursor) -> Call[Page[Batch]]:
    return _page(f"/v1/nodes/{node.hex()}/batches", Batch.read, cursor)


def batch(id: int) -> Call[JudgedBatch]:
    return _get(f"/v1/batches/{id}", JudgedBatch.read)


def settlements(batch: int, cursor: Cursor) -> Call[Page[Settlement]]:
    return _page(f"/v1/batches/{batch}/settlements", Settlement.read, cursor)


def settlements_of_hold(hold: bytes, cursor: Cursor) -> Call[Page[Settlement]]:
    return _page(f"/v1/holds/{hold.hex()}/settlements", Settlement.read, cursor)


def supply() -> Call[SupplyNow]:
    return _get("/v1/supply", SupplyNow.read)


def epochs(cursor: Cursor) -> Call[Page[Epoch]]:
    return _page("/v1/epochs", Epoch.read, cursor)


def entry(index: int) -> Call[LoggedEntry]:
    def read(fields: Fields) -> LoggedEntry:
        found = LoggedEntry.read(fields)
        if found.index != index:
            raise UntrustedError(f"asked for entry {index}, the ledger answers with {found.index}")
        return found

    return _get(f"/v1/entries/{index}", read)


def heartbeat(announcement: Announcement) -> Call[None]:
    """Tell the ledger what a node serves; the announcement is signed."""
    return Call("/v1/heartbeats", lambda data: None, "POST", body=announcement.pack(), status=204, max_bytes=0)


def directory(model: bytes, cursor: Cursor) -> Call[Page[Announcement]]:
    """Who serves a model, as its nodes have signed. What a newer version than this one announces is left out."""

    def read(fields: Fields) -> Announcement | None:
        found = _announcement(fields.blob("announcement"))
        if found is not None and found.model != model:
            raise UntrustedError(f"asked who serves {model.hex()}, the ledger names a node of {found.model.hex()}")
        return found

    return _page("/v1/directory", read, cursor, params={"model": model.hex()})


def put_evidence(auditor: Identity, data: bytes) -> Call[bytes]:
    """Keep what a verdict was made from; its SHA-256."""
    sha256 = hashlib.sha256(data).digest()

    def read(fields: Fields) -> bytes:
        if fields.digest("evidence") != sha256:
            raise UntrustedError("the ledger has kept something else than the evidence that it was sent")
        return sha256

    return _post("/v1/evidence", read, data, auditor)


def evidence(sha256: bytes) -> Call[bytes]:
    def parse(data: bytes) -> bytes:
        if hashlib.sha256(data).digest() != sha256:
            raise UntrustedError(f"what the ledger answers is not the evidence {sha256.hex()}")
        return data

    return Call(f"/v1/evidence/{sha256.hex()}", parse, max_bytes=MAX_EVIDENCE_BYTES)


def _get(path: str, read: Callable[[Fields], T], signer: Identity | None = None) -> Call[T]:
    return Call(path, lambda data: read(Fields.parse(data)), signer=signer)


def _page(
    path: str,
    read: Callable[[Fields], T | None],
    cursor: Cursor,
    signer: Identity | None = None,
    params: Mapping[str, str] | None = None,
) -> Call[Page[T]]:
    asked = {**(params or {}), **cursor.params()}
    return Call(path, lambda data: Page.parse(data, read), params=asked, signer=signer)


def _post(path: str, read: Callable[[Fields], T], body: bytes, signer: Identity | None = None) -> Call[T]:
    return Call(path, lambda data: read(Fields.parse(data)), "POST", body=body, signer=signer)


def _unpack(fields: Fields, unpack: Callable[[bytes], T]) -> T:
    packed = fields.blob("packed")
    return fields.packed("packed", lambda: unpack(packed))


def _announcement(packed: bytes) -> Announcement | None:
    """None for one of a version that is not known here. Raises UntrustedError for a forged one."""
    try:
        return Announcement.unpack(packed)
    except SignatureError as error:
        raise UntrustedError(f"the ledger's directory has what no node has signed: {error}") from error
    except ProtocolError:
        return None
