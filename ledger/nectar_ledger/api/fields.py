"""How values stand in JSON: bytes as hex or base64, amounts as decimal strings, enumerations by name."""

import re
from enum import IntEnum
from typing import Annotated, Any

from nectar_protocol.textual import to_base64
from pydantic import BeforeValidator, GetCoreSchemaHandler, GetJsonSchemaHandler, PlainSerializer, WithJsonSchema
from pydantic_core import CoreSchema
from pydantic_core.core_schema import enum_schema, plain_serializer_function_ser_schema

AMOUNT_PATTERN = "^(0|-?[1-9][0-9]*)$"
DIGEST = re.compile("[0-9a-f]{64}")
DIGEST_SCHEMA = WithJsonSchema({"type": "string", "pattern": f"^{DIGEST.pattern}$"})


def name_of(member: IntEnum) -> str:
    """HOLD_CLOSE is hold-close."""
    return member.name.lower().replace("_", "-")


class ByName:
    """A member of an enumeration as its name."""

    def __get_pydantic_core_schema__(self, source: type[IntEnum], handler: GetCoreSchemaHandler) -> CoreSchema:
        self._names = [name_of(member) for member in source]
        return enum_schema(source, list(source), serialization=plain_serializer_function_ser_schema(name_of))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "enum": self._names}


def _digest(text: object) -> bytes:
    if not isinstance(text, str) or not DIGEST.fullmatch(text):
        raise ValueError("write 32 bytes as 64 lower-case hex digits")
    return bytes.fromhex(text)


# A key, an ID or a hash: in an answer, and as it is asked for.
Digest = Annotated[bytes, PlainSerializer(bytes.hex), DIGEST_SCHEMA]
AskedDigest = Annotated[bytes, BeforeValidator(_digest), DIGEST_SCHEMA]
Base64 = Annotated[bytes, PlainSerializer(to_base64), WithJsonSchema({"type": "string", "contentEncoding": "base64"})]
# In µcr; those that move out of an account are negative.
Amount = Annotated[int, PlainSerializer(str), WithJsonSchema({"type": "string", "pattern": AMOUNT_PATTERN})]
