"""The package loads nothing but the standard library and PyNaCl, and its arrows point one way."""

import json
import subprocess
import sys

import pytest

MODULES = (
    "errors", "codec", "base58", "identity", "address", "manifest", "announcement",
    "record", "money", "hold", "receipt", "policy", "modelentry", "metering", "reference", "commitment",
    "command", "commands",
    "merkle", "proofs", "tiles", "textual", "note", "checkpoint", "logproof",
)  # fmt: skip
PYNACL = {"nacl", "_sodium", "_cffi_backend"}

SCRIPT = """
import importlib, json, sys
before = set(sys.modules)
importlib.import_module("nectar_protocol." + sys.argv[1])
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def imported_by(module: str) -> set[str]:
    command = [sys.executable, "-c", SCRIPT, module]
    return set(json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_the_standard_library_pynacl_and_its_own_package(module: str) -> None:
    roots = {name.partition(".")[0] for name in imported_by(module)}
    assert roots - sys.stdlib_module_names <= PYNACL | {"nectar_protocol"}


@pytest.mark.parametrize("module", ["base58", "codec", "manifest", "money", "merkle", "proofs", "tiles", "textual"])
def test_what_needs_no_key_does_not_load_pynacl(module: str) -> None:
    assert not PYNACL & imported_by(module)


def test_nothing_opens_a_socket_or_starts_an_event_loop_on_import() -> None:
    assert not {"asyncio", "socket"} & imported_by("commands")
