"""What work costs in CPU time: of processes, and of verifying a signature, which is what a ledger is held against."""

import threading
import time
from typing import Self

import psutil
from nacl.signing import SigningKey, VerifyKey

MESSAGE = bytes(300)
AT_ONCE = 16
PAUSE_S = 0.015


def cpu_s(pid: int) -> float:
    """User and system seconds of a process, its living children and those that have ended."""
    process = psutil.Process(pid)
    return sum(sum(one.cpu_times()[:4]) for one in (process, *process.children(recursive=True)))


class VerificationClock:
    """How long an Ed25519 verification takes, from a thread that verifies a few again and again while a block runs.

    So it is measured while what it is held against is: caches, cores and their clocks are shared alike.
    """

    def __init__(self) -> None:
        self._key = SigningKey.generate()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._spent_s, self._count = 0.0, 0

    @property
    def verification_us(self) -> float:
        """CPU time of one."""
        return 1e6 * self._spent_s / self._count

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        public, signature = bytes(self._key.verify_key), self._key.sign(MESSAGE).signature
        while not self._stop.wait(PAUSE_S) or not self._count:
            begun_s = time.thread_time()
            for _ in range(AT_ONCE):
                VerifyKey(public).verify(MESSAGE, signature)
            self._spent_s += time.thread_time() - begun_s
            self._count += AT_ONCE
