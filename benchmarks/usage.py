"""What work costs in CPU time: of processes, and of verifying a signature, which is what a ledger is held against."""

import time
from concurrent.futures import ThreadPoolExecutor

import psutil
from nacl.signing import SigningKey, VerifyKey

MESSAGE = bytes(300)


def cpu_s(pid: int) -> float:
    """User and system seconds of a process, its living children and those that have ended."""
    process = psutil.Process(pid)
    return sum(sum(one.cpu_times()[:4]) for one in (process, *process.children(recursive=True)))


def verification_us(threads: int, each: int) -> float:
    """CPU microseconds of one Ed25519 verification, when so many threads of this process do `each` of them at once."""
    key = SigningKey.generate()
    public, signature = bytes(key.verify_key), key.sign(MESSAGE).signature

    def verify(_: int) -> float:
        begun_s = time.thread_time()
        for _ in range(each):
            VerifyKey(public).verify(MESSAGE, signature)
        return time.thread_time() - begun_s

    with ThreadPoolExecutor(threads) as pool:
        return 1e6 * sum(pool.map(verify, range(threads))) / (threads * each)
