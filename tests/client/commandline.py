"""`nectar` run in the test's own process, and what it printed."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from nectar.cli import main

FAULTY, USAGE, UNREACHABLE = 3, 2, 4


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    def lines(self) -> list[dict[str, Any]]:
        """What `--json` printed, one object a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    def json(self) -> dict[str, Any]:
        (only,) = self.lines()
        return only


Nectar = Callable[..., Ran]


def runner(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Nectar:
    """Runs `nectar COMMAND …`."""
    # For a process that is the command's alone.
    monkeypatch.setattr(main, "skip_unused_imports", lambda: None)

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["nectar", command, *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            main.run()
        printed = capsys.readouterr()
        return Ran(exit.value.code or 0, printed.out, printed.err)  # type: ignore[arg-type]  # an int, as run gives it

    return run


def assert_one_line(ran: Ran, code: int, *words: str) -> None:
    assert ran.code == code, ran.err
    (line,) = ran.err.splitlines()
    for word in words:
        assert word in line
