"""Sends a round's signals while a session runs, and keeps the time of each of its steps."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
from nectar.session import Session

from benchmarks.survival.plan import Round, Shot
from benchmarks.survival.swarm import Swarm

KEEPER = logging.getLogger("nectar.keeper")


class Attack(logging.Handler):
    """From `begin` to `end`. Listens to what the session's keeper logs to know when the first loss was noticed."""

    def __init__(self, plan: Round, session: Session, swarm: Swarm) -> None:
        super().__init__(logging.INFO)
        self.plan, self.session, self.swarm = plan, session, swarm
        self.times_s: list[float] = []
        self.replayed = 0  # positions that a replacement needs
        self.sent = 0
        self._peers: list[str] = []
        self._timers: list[threading.Timer] = []
        self._undo: list[Callable[[], None]] = []
        self._step: Any = session.step

    def begin(self) -> None:
        """All steps from here on are timed; the one of the plan is shot at."""
        self.session.step = self._timed  # type: ignore[method-assign]

    def _timed(self, *arguments: Any) -> Any:
        if len(self.times_s) == self.plan.token:
            self._aim()
        began_s = time.perf_counter()
        try:
            return self._step(*arguments)
        finally:
            self.times_s.append(time.perf_counter() - began_s)

    def _aim(self) -> None:
        self._peers = [span.peer for span in self.session.route]
        self.replayed = self.session.position
        if self.plan.during_replay is not None:
            KEEPER.addHandler(self)
            KEEPER.setLevel(logging.INFO)
        for shot in self.plan.shots:
            self._later(shot, self._peers[shot.hop])

    def emit(self, record: logging.LogRecord) -> None:
        """The first loss was noticed; runs in the connection's loop."""
        KEEPER.removeHandler(self)
        shot = self.plan.during_replay
        assert shot is not None
        timer = threading.Timer(shot.delay_ms / 1e3, self._shoot_again, [shot])
        self._timers.append(timer)
        timer.start()

    def _shoot_again(self, shot: Shot) -> None:
        route = [span.peer for span in self.session.route]
        new = [peer for peer in route if peer not in self._peers]
        if shot.hop or not new:
            survivor = (self.plan.shots[0].hop + max(shot.hop, 1)) % len(self._peers)
            new = [self._peers[survivor]]
        self._shoot(shot, new[0])

    def _later(self, shot: Shot, peer: str) -> None:
        timer = threading.Timer(shot.delay_ms / 1e3, self._shoot, [shot, peer])
        self._timers.append(timer)
        timer.start()

    def _shoot(self, shot: Shot, peer: str) -> None:
        node = self.swarm.node(peer)
        if node is None:
            return
        try:
            pid = node.process.pid if shot.target == "node" else node.p2pd_pid
            os.kill(pid, getattr(signal, shot.signal))
        except (ProcessLookupError, psutil.Error, StopIteration):
            return  # it has ended by itself meanwhile
        self.sent += 1
        if shot.signal == "SIGSTOP":
            self._undo.append(lambda: os.kill(pid, signal.SIGCONT))

    def end(self) -> None:
        """Wait for what was to be sent, and let those go on that were stopped."""
        KEEPER.removeHandler(self)
        for timer in self._timers:
            timer.join()
        for undo in self._undo:
            try:
                undo()
            except ProcessLookupError:
                continue
