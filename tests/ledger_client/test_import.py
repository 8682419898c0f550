"""The client is light: it needs httpx and what signs its requests, and its offline part not even these."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

CLIENT = {"nectar_ledger_client", "nectar_protocol"}
PYNACL = {"nacl", "_sodium", "_cffi_backend"}
HTTP = {"httpx", "httpcore", "h11", "anyio", "certifi", "idna", "sniffio", "typing_extensions", "exceptiongroup"}
SIGNING = {"http_message_signatures", "http_sf", "cryptography", "_cffi_backend", "_openssl", "typing_extensions"}
# httpx imports these where they are installed.
OPTIONAL = {"brotli", "_brotli", "zstandard", "socksio", "h2", "click", "rich", "pygments", "markdown_it", "mdurl"}
OFFLINE = ("errors", "kept", "verifier", "words")

SCRIPT = """
import importlib, json, sys
before = set(sys.modules)
for module in sys.argv[1:]:
    importlib.import_module("nectar_ledger_client." + module)
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


def roots(*modules: str) -> set[str]:
    command = [sys.executable, "-c", SCRIPT, *modules]
    loaded = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    return set(loaded) - sys.stdlib_module_names


def modules() -> list[str]:
    spec = find_spec("nectar_ledger_client")
    assert spec is not None
    assert spec.origin is not None
    return sorted(path.stem for path in Path(spec.origin).parent.glob("*.py") if path.stem != "__init__")


def test_the_client_imports_httpx_and_what_signs_requests_and_nothing_of_the_service() -> None:
    loaded = roots(*modules())
    assert loaded <= CLIENT | PYNACL | HTTP | SIGNING | OPTIONAL
    assert not loaded & {"torch", "sqlalchemy", "fastapi", "nectar_ledger"}


@pytest.mark.parametrize("module", OFFLINE)
def test_the_offline_verifier_imports_the_protocol_alone(module: str) -> None:
    assert roots(module) <= CLIENT | PYNACL
