"""Records of the protocol in JSON: a view of what is signed, and never signed itself.

Bytes are hex, amounts decimal strings, enumerations names. `view` takes any part of an entry; `InJson` makes a record
the type of a field, which OpenAPI shows by its layout.
"""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from enum import IntEnum
from typing import Any

from nectar_protocol.command import SignedCommand
from nectar_protocol.commands import parse_command
from nectar_protocol.entries import BatchClosed
from nectar_protocol.entry import SALT_SIZE
from nectar_protocol.hold import SignedHold
from nectar_protocol.modelentry import AuditState, BlockCost, ModelEntry
from nectar_protocol.receipt import SignedReceipt
from nectar_protocol.record import Codec, Raw, Record, Uint
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema
from pydantic_core.core_schema import is_instance_schema, plain_serializer_function_ser_schema

from nectar_ledger.api.fields import AMOUNT_PATTERN, name_of

AMOUNT = "_ucr"


def view(value: object, name: str = "") -> Any:
    """`value` as JSON has it; `name` is the field that it stands in."""
    match value:
        case None | bool() | str():
            return value
        case IntEnum():
            return name_of(value)
        case int():
            return str(value) if name.endswith(AMOUNT) else value
        case bytes():
            return value.hex()
        case SignedCommand(command, signatures):
            return {"command": command.NAME, **view(command), "signatures": view(signatures)}
        case SignedHold(hold, signature):
            return {**view(hold), "signature": signature.hex()}
        case SignedReceipt(receipt, by_server, by_session):
            return {**view(receipt), "server_signature": by_server.hex(), "session_signature": by_session.hex()}
        case ModelEntry():
            return _model(value)
        case BatchClosed():
            return {**_named(value), "verdicts": [_verdict(index, sealed) for index, sealed in value.verdicts]}
        case frozenset():
            return [name_of(member) for member in sorted(value)]
    return _named(value) if is_dataclass(value) or hasattr(value, "_fields") else _list(value)


def _named(value: Any) -> dict[str, Any]:
    names = value._fields if hasattr(value, "_fields") else [field.name for field in fields(value)]
    return {name: view(getattr(value, name), name) for name in names}


def _list(value: Any) -> list[Any]:
    if not isinstance(value, Sequence):
        raise TypeError(f"no JSON is known for a {type(value).__name__}")
    return [view(item) for item in value]


def _verdict(index: int, sealed: bytes) -> dict[str, Any]:
    """With its salt, so that anybody can check what entry `index` had sealed."""
    return {"index": index, "salt": sealed[:SALT_SIZE].hex(), **view(parse_command(sealed[SALT_SIZE:]))}


def _model(entry: ModelEntry) -> dict[str, Any]:
    """Each distinct cost once, and for each block the number of its own: as it is packed."""
    costs = list(dict.fromkeys(entry.blocks))
    numbers = {cost: number for number, cost in enumerate(costs)}
    head = {"model": entry.model, "version": entry.version, "state": entry.state}
    return {
        **{name: view(value) for name, value in head.items()},
        "costs": view(costs),
        "blocks": [numbers[cost] for cost in entry.blocks],
    }


class InJson:
    """A record as `view` shows it, with its layout in OpenAPI."""

    def __get_pydantic_core_schema__(self, source: type[Record], handler: GetCoreSchemaHandler) -> CoreSchema:
        self._kind = source
        return is_instance_schema(source, serialization=plain_serializer_function_ser_schema(view))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return record_schema(self._kind)


def record_schema(kind: type[Record]) -> dict[str, Any]:
    """The JSON schema of `view`, as far as a layout says."""
    if kind is ModelEntry:
        return MODEL_SCHEMA
    properties = {name: _schema(name, codec) for name, codec in kind.layout()}
    return {"type": "object", "description": kind.__doc__, "properties": properties, "required": list(properties)}


def _schema(name: str, codec: Uint | Raw | Codec) -> dict[str, Any]:
    match codec:
        case Uint(kind=enumeration) if isinstance(enumeration, type) and issubclass(enumeration, IntEnum):
            return {"type": "string", "enum": [name_of(member) for member in enumeration]}
        case Uint() if name.endswith(AMOUNT):
            return {"type": "string", "pattern": AMOUNT_PATTERN}
        case Uint(least=least, most=most):
            return {"type": "integer", "minimum": least, "maximum": most}
        case Raw(size=size):
            return {"type": "string", "pattern": f"^[0-9a-f]{{{2 * size}}}$"}
    raise TypeError(f"no schema is known for {name}")


MODEL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "Each distinct cost of a block once, and for each block the number of its own, from 0.",
    "properties": {
        "model": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        "version": {"type": "integer", "minimum": 1},
        "state": {"type": "string", "enum": [name_of(state) for state in AuditState]},
        "costs": {"type": "array", "items": record_schema(BlockCost)},
        "blocks": {"type": "array", "items": {"type": "integer", "minimum": 0}},
    },
    "required": ["model", "version", "state", "costs", "blocks"],
}
