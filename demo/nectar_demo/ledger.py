"""A ledger as a process of its own, on a free port of this machine."""

import json
import os
import select
import signal
import subprocess
import sys

from nectar_ledger.home import Home

from nectar_demo.errors import DemoError

START_S = 60.0
END_S = 60.0


class LedgerProcess:
    """`nectar ledger serve` on a free port of this machine: begun by the constructor, serving when `wait` returns."""

    def __init__(self, home: Home) -> None:
        self.url = self._output = ""
        self._log = home.root / "serve.log"
        command = [sys.executable, "-m", "nectar.cli", "ledger", "serve", "--json", "--data", str(home.root)]
        command += ["--database", home.database_url, "--host", "127.0.0.1", "--port", "0", "--until-eof"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={key: value for key, value in os.environ.items() if not key.startswith("NECTAR_")},
                cwd=home.root,  # where no nectar.toml of the user's lies
                start_new_session=True,  # Ctrl-C is for us, not for the ledger
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self) -> "LedgerProcess":
        """Until it serves. Raises DemoError with the end of its log if it does not come to that."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], START_S)
        line = self._process.stdout.readline() if ready else "{}"
        self.url = json.loads(line or "{}").get("url", "")
        if not self.url:
            self._output += line
            self.kill()
            raise DemoError(f"the ledger did not start: {self.said()[-2000:]}")
        return self

    def said(self) -> str:
        """Its log, and what it has printed in the end."""
        return self._log.read_text(errors="replace") + self._output

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self.ended()

    def ended(self) -> int:
        """The exit code of a process that ends by itself. Raises DemoError if it does not."""
        try:
            code = self._process.wait(END_S)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise DemoError(f"the ledger did not end within {END_S:.0f} s: {self.said()[-2000:]}") from error
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is not None:
            stdin.close()
        if stdout is not None and not stdout.closed:
            self._output += stdout.read()
            stdout.close()
        return code

    def stop(self) -> int:
        """Ask it to end, and wait: the exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self.ended()
