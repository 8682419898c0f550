"""How p2pd is started: away from the terminal's signals, and tied to us, where the system can do that.

A Ctrl-C goes to every process of the terminal's foreground group; p2pd must outlive ours, which still has to say that
it leaves. A killed process keeps its sockets until the kernel has freed its memory, about 0.1 s for each gigabyte; its
p2pd would live as long, and then some, and the peers of a dead node would go on waiting for it.
"""

import subprocess
import sys
from functools import cache

APART = (sys.executable, "-I", "-S", "-c", "import os, sys; os.setsid(); os.execvp(sys.argv[1], sys.argv[1:])")
TIED = ("setpriv", "--pdeathsig", "KILL")
TRY_S = 5.0


@cache
def tether() -> tuple[str, ...]:
    """What to put before a command.

    Linux counts the end of the thread that starts the command as ours.
    """
    apart = ("setsid",) if _works("setsid") else APART
    return (*apart, *(TIED if _works(*TIED) else ()))


def _works(*command: str) -> bool:
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True, timeout=TRY_S)
    except (OSError, subprocess.SubprocessError):
        return False
    return True
