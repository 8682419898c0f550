"""A load of many sessions, by a process of its own that only sends stored hidden states and counts what is answered."""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from benchmarks.economy.venue import Place

END_S = 20.0


class LoadError(Exception):
    """The load has ended, or a step has failed."""


class Load:
    """The process, as seen from outside. Made by `open_load`. Each method raises LoadError."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def go(self) -> None:
        self.tell("go")

    def pause(self) -> None:
        """Let the steps that are under way be the last."""
        self.tell("pause")

    def steps(self) -> Counter[int]:
        """Answered so far, by their sessions' weights."""
        return Counter({int(weight): steps for weight, steps in self.tell("count")["steps"].items()})

    def tell(self, word: str) -> Any:
        """What it answers to that."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(word, file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        said = json.loads(line or '{"error": "it has ended"}')
        if "error" in said:
            raise LoadError(said["error"])
        return said


@contextmanager
def open_load(place: Place, sessions: Mapping[int, int], tokens: int = 1) -> Iterator[Load]:
    """So many sessions of each weight, all of them opened under holds and waiting; `tokens` are those of a step.

    Raises LoadError.
    """
    order = {
        "address": place.node.address, "model": place.id.hex(), "blocks": place.stage.blocks,
        "width": place.stage.width, "ledger": place.ledger, "wallet": str(place.wallet),
        "sessions": list(sessions.items()), "tokens": tokens,
    }  # fmt: skip
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.economy.streams"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        load = Load(process)
        try:
            load.tell(json.dumps(order))
            yield load
        except LoadError as error:
            log.seek(0)
            raise LoadError(f"{error}: {log.read()[-1000:]}") from error
        finally:
            _end(process)


def _end(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
