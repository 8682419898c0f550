"""What has the kernel kill a process of ours when we die.

A killed process keeps its sockets until the kernel has freed its memory, about 0.1 s for each gigabyte; its p2pd would
live as long, and then some, and the peers of a dead node would go on waiting for it.
"""

import subprocess
from functools import cache

COMMAND = ("setpriv", "--pdeathsig", "KILL")
TRY_S = 5.0


@cache
def tether() -> tuple[str, ...]:
    """What to put before a command; nothing where the system has no such thing.

    Linux counts the end of the thread that starts the command as ours.
    """
    try:
        subprocess.run([*COMMAND, "true"], check=True, capture_output=True, timeout=TRY_S)
    except (OSError, subprocess.SubprocessError):
        return ()
    return COMMAND
