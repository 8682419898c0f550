"""Forks node processes from one that has imported what they need, which is nine tenths of a node's start.

A benchmark of ten nodes would spend half of its minute on imports. A node's command is put behind a small process that
hands the command, its environment and its pipes over to the server, and stays until the node ends. What the server
forks is a process of its own with a p2pd of its own, like any other node.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

START_S = 60.0


@contextmanager
def nursery(folder: Path) -> Iterator[list[str]]:
    """The beginning of a node's command, while the server runs; empty where forking such a process is not safe."""
    if sys.platform != "linux":
        yield []
        return
    path = str(folder / "nursery")
    server = subprocess.Popen([sys.executable, "-m", "benchmarks.nursery", "serve", path])
    try:
        yield [sys.executable, "-I", "-S", __file__, "hand-over", path]
    finally:
        server.kill()
        server.wait()


def hand_over(path: str, command: list[str]) -> None:
    order = {"command": command, "environment": dict(os.environ), "folder": os.getcwd()}
    with socket.socket(socket.AF_UNIX) as server:
        deadline_s = time.monotonic() + START_S
        while server.connect_ex(path) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        socket.send_fds(server, [json.dumps(order).encode()], [0, 1, 2])
        server.shutdown(socket.SHUT_WR)
        server.recv(1)  # nothing comes; it returns when the node has ended


def serve(path: str) -> None:
    from nectar_swarm.lean import skip_unused_imports

    skip_unused_imports()
    for module in ("nectar.cli.main", "nectar_node.node", "transformers.models.llama.modeling_llama"):
        import_module(module)

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system forgets ended children by itself
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        while True:
            caller, _ = server.accept()
            text, pipes, _, _ = socket.recv_fds(caller, 1 << 20, 3)
            while piece := caller.recv(1 << 20):
                text += piece
            if os.fork() == 0:
                become(json.loads(text), pipes)
            caller.close()  # the child keeps it open for as long as it lives
            for pipe in pipes:
                os.close(pipe)


def become(order: dict[str, Any], pipes: list[int]) -> None:
    """Run the command in this forked process, and end with it."""
    from nectar.cli.main import run

    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        for number, pipe in enumerate(pipes):
            os.dup2(pipe, number)
        os.closerange(min(pipes), max(pipes) + 1)
        os.chdir(order["folder"])
        os.environ.clear()
        os.environ.update(order["environment"])
        sys.argv = ["nectar", *order["command"]]
        run()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        hand_over(sys.argv[2], sys.argv[sys.argv.index("nectar.cli") + 1 :])
