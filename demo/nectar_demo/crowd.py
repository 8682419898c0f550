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
        self._texts: list[tuple[float, float]] = []  # when one was done, and how long it took
        self.refused = 0
        self._threads = [threading.Thread(target=self._use, daemon=True) for _ in range(users)]

    @property
    def users(self) -> int:
        return len(self._threads)

    @property
    def tokens(self) -> int:
        return TOKENS * len(self._texts)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """All stop within their present tokens."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def text_s(self, since_s: float) -> float:
        """The median time for a page, of those done since then (`time.perf_counter`); 0 where there is none."""
        return statistics.median([took_s for done_s, took_s in self._texts if done_s >= since_s] or [0.0])

    def _use(self) -> None:
        while not self._stop.is_set():
            try:
                self._generate()
            except (ClientError, SwarmError):  # full, or just lost: as a person would, it tries again
                self.refused += 1
                self._stop.wait(AGAIN_S)

    def _generate(self) -> None:
        stop, started_s = self._stop, time.perf_counter()

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
                stopping_criteria=StoppingCriteriaList([Stopped()]),
            )
        if not stop.is_set():
            with self._lock:
                self._texts.append((time.perf_counter(), time.perf_counter() - started_s))
