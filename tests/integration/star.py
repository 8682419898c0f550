"""A network of our own on this machine: leaves that reach its centre and nothing else, not even each other."""

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

CENTRE_IP = "10.77.0.1"
READY_S = 10.0


@dataclass
class Star:
    """Network namespaces, each held by a process. `open` raises StarError where the system does not allow them."""

    holders: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def open(self) -> "Star":
        self._hold(() if os.geteuid() == 0 else ("--user", "--map-root-user"))
        self._configure(0, "link set lo up", f"address add {CENTRE_IP}/32 dev lo")
        return self

    @property
    def centre(self) -> list[str]:
        """What to put before a command to run it in the centre."""
        return self._inside(0)

    def add_leaf(self) -> list[str]:
        """What to put before a command to run it in a new leaf."""
        number = len(self.holders)
        self._hold((), self.centre)
        leaf = f"leaf{number}"
        self._configure(0, f"link add {leaf} type veth peer name eth0 netns {self.holders[number].pid}")
        self._configure(0, f"address add 10.77.{number}.1/24 dev {leaf}", f"link set {leaf} up")
        self._configure(number, "link set lo up", f"address add 10.77.{number}.2/24 dev eth0", "link set eth0 up")
        self._configure(number, f"route add {CENTRE_IP}/32 via 10.77.{number}.1")
        return self._inside(number)

    def close(self) -> None:
        for holder in reversed(self.holders):
            assert holder.stdin is not None
            holder.stdin.close()
            holder.wait()

    def _hold(self, options: Sequence[str], within: Sequence[str] = ()) -> None:
        """A namespace lives as long as the process inside it, and that as long as we."""
        holder = subprocess.Popen(
            [*within, "unshare", "--net", *options, "cat"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.holders.append(holder)
        deadline_s = time.monotonic() + READY_S
        while _name(holder.pid) != "cat":
            if holder.poll() is not None or time.monotonic() > deadline_s:
                raise StarError("this system does not let us make network namespaces")
            time.sleep(0.01)

    def _inside(self, number: int) -> list[str]:
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", str(self.holders[number].pid), "--net", *user]

    def _configure(self, number: int, *lines: str) -> None:
        for line in lines:
            done = subprocess.run([*self._inside(number), "ip", *line.split()], capture_output=True, check=False)
            if done.returncode:
                raise StarError(f"ip {line}: {done.stderr.decode().strip()}")


class StarError(Exception):
    """The system does not allow what is needed."""


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""
