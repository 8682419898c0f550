"""Nodes as processes of their own, which end with the process that started them."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from nectar_demo.errors import DemoError

START_S = 120.0


class NodeProcess:
    """`nectar node` in a process: begun by the constructor, serving when `wait` returns. Logs go to `folder`.

    `within` is what the command is put behind, to run it somewhere else.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        model: Path,
        blocks: str | None = None,
        initial_peers: Sequence[str] = (),
        options: Sequence[str] = (),
        within: Sequence[str] = (),
    ) -> None:
        self.name, self.blocks = name, blocks
        self.log = folder / f"{name}.log"
        command = [sys.executable, "-m", "nectar.cli", "node", "--json", "--until-eof", "--model", str(model)]
        command += ["--name", name, "--key", str(folder / f"{name}.key"), "--host", "127.0.0.1", "--threads", "1"]
        command += ["--blocks", blocks] if blocks else []
        command += [part for peer in initial_peers for part in ("--initial-peers", peer)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*within, *command, *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=clean_environment(),
                cwd=folder,  # where no nectar.toml of the user's lies
                start_new_session=True,  # Ctrl-C is for us, not for the nodes
            )
        self.serving: dict[str, Any] = {}

    def wait(self, timeout_s: float = START_S) -> "NodeProcess":
        """Until the node serves. Raises DemoError with the end of its log if it does not."""
        assert self.process.stdout is not None
        deadline_s = time.monotonic() + timeout_s
        while not select.select([self.process.stdout], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
            if time.monotonic() >= deadline_s:
                self.stop()
                raise DemoError(f"node {self.name} did not start within {timeout_s:.0f} s; see {self.log}")
        line = self.process.stdout.readline()
        said = json.loads(line) if line else {}
        if "peer" not in said:
            self.stop()
            raise DemoError(f"node {self.name} did not start: {said.get('error') or self.log.read_text()[-500:]}")
        self.serving = said
        return self

    @property
    def peer(self) -> str:
        return str(self.serving["peer"])

    @property
    def address(self) -> str:
        return str(self.serving["addresses"][0])

    @property
    def p2pd_pid(self) -> int:
        """The libp2p daemon beside the node."""
        return next(child.pid for child in psutil.Process(self.process.pid).children() if "p2pd" in child.name())

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        """End the process at once and wait for it; its p2pd follows."""
        if self.alive:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def clean_environment() -> dict[str, str]:
    """Ours without the user's settings for Nectar, but for where it keeps what it has computed."""
    return {key: value for key, value in os.environ.items() if not key.startswith("NECTAR_") or key == "NECTAR_CACHE"}
