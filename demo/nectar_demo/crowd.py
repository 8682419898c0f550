"""A crowd of free users: each has one page after the other read and continued, in the free class, until it stops."""

import statistics
import threading
import time
from typing import Any

from nectar.errors import ClientError
from nectar_swarm.errors import SwarmError
from transformers import StoppingCriteria, StoppingCriteriaList

TOKENS = 24
AGAIN_S = 0.2


class Crowd:
    """`users` threads with sessions of one model, which is connected to the swarm and to its ledger."""

    def __init__(self, model: Any, ids: Any, users: int) -> None:
        self._model, self._ids = model, ids
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._waits: list[tuple[float, float]] = []  # when a token came, and how long it was waited for
        self.refused = 0
        self._threads = [threading.Thread(target=self._use, daemon=True) for _ in range(users)]

    @property
    def users(self) -> int:
        return len(self._threads)

    @property
    def tokens(self) -> int:
        return len(self._waits)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """All stop within their present tokens."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_ms(self, since_s: float) -> float:
        """The median wait for a token since then (`time.perf_counter`)."""
        waits = [wait_s for at_s, wait_s in self._waits if at_s >= since_s]
        return 1e3 * statistics.median(waits) if waits else 0.0

    def _use(self) -> None:
        while not self._stop.is_set():
            try:
                self._generate()
            except (ClientError, SwarmError):  # full, or just lost: as a person would, it tries again
                self.refused += 1
                self._stop.wait(AGAIN_S)

    def _generate(self) -> None:
        stop, watch = self._stop, Watch(self)

        class Stopped(StoppingCriteria):  # type: ignore[misc]  # Transformers has no types
            def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> bool:
                return stop.is_set()

        with self._model.session(self._ids.shape[1] + TOKENS) as session:
            self._model.generate(
                self._ids,
                session=session,
                max_new_tokens=TOKENS,
                min_new_tokens=TOKENS,
                do_sample=False,
                streamer=watch,
                stopping_criteria=StoppingCriteriaList([Stopped()]),
            )

    def waited(self, wait_s: float) -> None:
        with self._lock:
            self._waits.append((time.perf_counter(), wait_s))


class Watch:
    """A streamer that tells the crowd how long each token but the first was waited for."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._last_s: float | None = None
        self._count = 0

    def put(self, value: Any) -> None:
        now_s, last_s = time.perf_counter(), self._last_s
        self._last_s = now_s
        self._count += 1
        if last_s is not None and self._count > 2:  # the prompt comes first, then the token that opens the session
            self._crowd.waited(now_s - last_s)

    def end(self) -> None:
        pass
