"""The committed vectors are what the generator writes, in a form that any language can read."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nectar_protocol import errors

FOLDER = Path(__file__).parents[1] / "vectors"
NAMES = (
    "base58", "identity", "verification", "manifest", "address", "announcement",
    "hold", "receipt", "command", "metering", "commitment", "entry",
    "merkle", "tile", "note", "checkpoint", "log_proof",
)  # fmt: skip

HEX_FIELDS = {
    "account", "adapter", "asked", "auditor", "begin", "binary", "body", "body_hash", "bundle", "commitment",
    "data", "earner", "entries", "entry", "evidence", "extra", "frontier", "hold", "holds", "id", "input",
    "input_digests", "key", "key_file", "key_id", "leaf", "leaves", "ledger", "ledger_key", "model",
    "model_id", "new", "new_root", "node", "old", "old_root", "operator", "output", "output_digests", "packed",
    "payee", "payer", "previous", "proof", "public_key", "publisher", "receipt", "role", "roles", "root", "salt",
    "seal", "sealed", "seed", "server", "server_role", "session", "session_role", "sha256", "signature",
    "successor",
}  # fmt: skip
EIGHT_BYTES = {
    "issued_ms", "expires_ms", "size", "old_size", "new_size", "index", "hold_expires_ms", "cap_units",
    "amount_ucr", "units", "seq", "number", "price", "token_flops", "position_flops", "emission_ucr",
    "prefill_tokens", "decode_context", "account_number", "batch_account", "hold_account", "epoch", "fee_ucr",
    "paid_ucr", "released_ucr", "time_ms", "down_from_ms", "started_ms", "free_units", "emitted_ucr", "burned_ucr",
    "wallets_ucr", "pool_ucr", "holds_ucr", "batches_ucr",
}  # fmt: skip


def fields(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every (field, scalar) in a JSON value; the items of a list stand under the list's name."""
    match value:
        case dict():
            for name, item in value.items():
                yield from fields(item, name)
        case list():
            for item in value:
                yield from fields(item, key)
        case _:
            yield key, value


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vectors")
    subprocess.run([sys.executable, FOLDER / "generate.py", folder], check=True)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_regenerating_gives_the_committed_file(name: str, regenerated: Path) -> None:
    assert (regenerated / f"{name}.json").read_bytes() == (FOLDER / f"{name}.json").read_bytes()


def test_the_generator_writes_no_other_file(regenerated: Path) -> None:
    assert {path.stem for path in regenerated.iterdir()} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_value_is_hex_text_or_an_integer_that_javascript_keeps(name: str) -> None:
    for field, value in fields(json.loads((FOLDER / f"{name}.json").read_text())):
        assert isinstance(value, str) or (type(value) in (bool, int) and 0 <= value < 2**53), field
        if field in HEX_FIELDS:
            assert re.fullmatch("([0-9a-f]{2})*", str(value)), field
        if field in EIGHT_BYTES:
            assert isinstance(value, str), field
            assert re.fullmatch("0|[1-9][0-9]*", str(value)), field


@pytest.mark.parametrize("name", NAMES)
def test_every_invalid_case_has_a_name_of_its_own_and_an_error_class_of_the_package(name: str) -> None:
    vectors = json.loads((FOLDER / f"{name}.json").read_text())
    groups = [cases for key, cases in vectors.items() if key.startswith("invalid")]
    assert groups
    for cases in groups:
        assert all(issubclass(getattr(errors, case["error"]), errors.ProtocolError) for case in cases)
        assert len({case["name"] for case in cases}) == len(cases)
