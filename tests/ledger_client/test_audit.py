"""`nectar audit`: fetches a proof, checks it anywhere, says what it proves, and fails loudly."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from click.testing import CliRunner
from nectar.cli.main import command, exit_code
from nectar_ledger_client.errors import BusyError, UnreachableError
from nectar_ledger_client.verifier import write_proof_file

from tests.ledger.api.served import ALICE, Served
from tests.ledger_client.history import write_history
from tests.ledger_client.paper import LOG, PaperLog, witness_key

FAULTY, USAGE, UNREACHABLE = 3, 2, 4


class Done(NamedTuple):
    """How a run ended: its exit code, what it printed, and the one line of its error."""

    code: int
    stdout: str
    error: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines()]


Audit = Callable[..., Done]


@pytest.fixture
def audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Audit:
    """Runs the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, **environment: str) -> Done:
        done = CliRunner().invoke(command, ["audit", *arguments], env=environment, standalone_mode=False)
        match done.exception:
            case None:
                return Done(0, done.stdout, done.stderr)
            case click.ClickException() as error:
                return Done(error.exit_code, done.stdout, error.format_message())
        code = exit_code(done.exception)
        assert code is not None, done.exception
        return Done(code, done.stdout, str(done.exception))

    return run


@pytest.fixture
def process(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs the command as its users do."""

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "nectar.cli", "audit", *arguments],
            capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False,
        )  # fmt: skip

    return run


@pytest.fixture(scope="module")
def log() -> PaperLog:
    return PaperLog().publish([draft.entry for draft in write_history().log], "ada", "bob")


STEPS = ["entry", "checkpoint", "inclusion", "witnesses", "signatures"]


def test_each_step_is_printed_and_what_is_proved(audit: Audit, log: PaperLog, tmp_path: Path) -> None:
    write_proof_file(tmp_path / "proof", log.proof(11))
    done = audit("proof", "--log-key", str(LOG), "--witness", str(witness_key("ada")))
    *steps, proved = done.stdout.splitlines()
    assert [step.split(":")[0] for step in steps] == [f"✓ {name}" for name in STEPS]
    assert "6405 units" in proved
    assert audit("file", "proof", NECTAR_LOG_KEY=str(LOG)).stdout.splitlines()[-1] == proved


def test_as_json_each_step_is_an_object(audit: Audit, log: PaperLog, tmp_path: Path) -> None:
    write_proof_file(tmp_path / "proof", log.proof(11))
    *steps, proved = audit("--json", "--log-key", str(LOG), "proof").lines
    assert [step["check"] for step in steps if step["passed"]] == [name for name in STEPS if name != "witnesses"]
    assert (proved["index"], proved["kind"], proved["size"]) == (11, "settle", log.size)


def test_too_few_witnesses_end_with_an_error(audit: Audit, log: PaperLog, tmp_path: Path) -> None:
    write_proof_file(tmp_path / "proof", log.proof(11))
    witnesses = [flag for name in ("ada", "eve") for flag in ("--witness", str(witness_key(name)))]
    assert audit("proof", "--log-key", str(LOG), *witnesses).code == FAULTY
    assert audit("proof", "--log-key", str(LOG), *witnesses, "--quorum", "1").code == 0
    assert audit("proof", "--log-key", str(LOG), *witnesses, "--quorum", "3").code == USAGE


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["none", "--log-key", str(LOG)], FAULTY, "cannot read none"),
        (["none"], USAGE, "--log-key"),
        (["none", "--log-key", "me"], FAULTY, "NAME+ID+KEY"),
        (["none", "--log-key", str(LOG), "--holds-key", "me"], USAGE, "64 lower-case hex"),
        (["receipt", "1", "--ledger", "nowhere", "--save", "proof"], FAULTY, "https://ledger.example"),
    ],
)
def test_what_is_missing_or_wrong_is_said(audit: Audit, arguments: list[str], code: int, words: str) -> None:
    done = audit(*arguments)
    assert done.code == code
    assert words in done.error


def test_a_ledger_that_cannot_be_reached_has_an_exit_code_of_its_own() -> None:
    assert exit_code(UnreachableError("gone")) == exit_code(BusyError("busy", 1.0)) == UNREACHABLE


@pytest.mark.parametrize("as_json", [False, True])
def test_what_proves_nothing_ends_with_an_exit_code(process: Any, log: PaperLog, tmp_path: Path, as_json: bool) -> None:
    write_proof_file(tmp_path / "proof", replace(log.proof(11), extra=log.entries[10]))
    done = process("proof", "--log-key", str(LOG), *(["--json"] if as_json else []))
    assert done.returncode == FAULTY
    if as_json:
        assert json.loads(done.stdout.splitlines()[-1])["exit_code"] == FAULTY
    else:
        assert len(done.stderr.splitlines()) == 1
        assert "this proves nothing" in done.stderr


def test_a_proof_is_fetched_from_a_ledger_and_checked_without_it(served: Served, audit: Audit, tmp_path: Path) -> None:
    (answer,) = served.record(served.world.fund(ALICE, 1000))
    served.service.signer.sign()
    where, ledger = ["--ledger", served.url], served.world.ledger.hex()
    fetched = audit("receipt", str(answer.index), *where, "--ledger-id", ledger, "--save", "proof")
    assert fetched.code == 0, fetched.error
    *_, advice = fetched.error.splitlines()
    checked = audit(*advice.split("nectar audit ")[1].split())
    assert (checked.code, checked.stdout) == (0, fetched.stdout)
    assert audit("receipt", "0", *where, "--ledger-id", "0" * 64, "--save", "other").code == FAULTY
    assert not (tmp_path / "other").exists()
