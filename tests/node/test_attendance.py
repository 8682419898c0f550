"""Whom an iteration waits for: those who decode and usually come soon, and not for long."""

import math

import pytest
from nectar_node.attendance import LATE, LINGER_SHARE, RECENT_S, Attendance

ITERATION_S = 1.0
LIMIT_S = LINGER_SHARE * ITERATION_S


def returning(absence_s: float, *, at_s: float = 0.0, short: bool = True, key: str = "a") -> Attendance:
    """A session that left at `at_s`, after it had come back once from so long an absence."""
    attendance = Attendance()
    attendance.came(key, at_s - absence_s - 2.0, short=short)
    attendance.left(key, at_s - absence_s - 1.0)
    attendance.came(key, at_s - 1.0, short=short)
    attendance.left(key, at_s)
    return attendance


def test_those_who_usually_come_soon_are_waited_for_until_they_are_late() -> None:
    attendance = returning(0.02)
    assert attendance.wait_until(0.0, ITERATION_S) == pytest.approx(LATE * 0.02)
    assert attendance.wait_until(LATE * 0.02 + 0.01, ITERATION_S) < LATE * 0.02 + 0.01, "it is late"


def test_the_longest_that_is_worth_it_decides() -> None:
    attendance = returning(0.02)
    for key, absence_s in (("b", 0.05), ("c", LIMIT_S)):
        attendance.came(key, -1.0 - absence_s, short=True)
        attendance.left(key, -absence_s)
        attendance.came(key, 0.0, short=True)
        attendance.left(key, 0.0)
    assert attendance.wait_until(0.0, ITERATION_S) == pytest.approx(LATE * 0.05)


@pytest.mark.parametrize(
    ("absence_s", "short"),
    [(LIMIT_S, True), (60.0, True), (0.02, False)],
    ids=["too long an absence", "somebody who thinks", "prompts alone"],
)
def test_nobody_else_is_waited_for(absence_s: float, short: bool) -> None:
    assert returning(absence_s, short=short).wait_until(0.0, ITERATION_S) <= 0.0


def test_who_is_here_is_not_waited_for() -> None:
    attendance = returning(0.02)
    attendance.came("a", 0.01, short=True)
    assert attendance.wait_until(0.01, ITERATION_S) == -math.inf


def test_who_has_come_once_is_not_known_and_who_is_forgotten_no_longer() -> None:
    attendance = Attendance()
    attendance.came("new", 0.0, short=True)
    attendance.left("new", 1.0)
    assert attendance.wait_until(1.0, ITERATION_S) <= 1.0
    known = returning(0.02)
    known.forget("a")
    known.left("a", 5.0)  # its last step was done after it had ended
    assert known.wait_until(0.0, ITERATION_S) == -math.inf
    assert known.active(5.0) == (0, False)


def test_an_absence_is_smoothed_and_that_of_a_reader_is_forgotten() -> None:
    attendance, now_s = returning(0.02), 0.0
    for _ in range(30):
        now_s += 0.04
        attendance.came("a", now_s, short=True)
        attendance.left("a", now_s)
    assert attendance.wait_until(now_s, ITERATION_S) == pytest.approx(now_s + LATE * 0.04, rel=1e-3)
    attendance.came("a", now_s + 30.0, short=False)  # its next message
    attendance.left("a", now_s + 31.0)
    attendance.came("a", now_s + 31.02, short=True)
    attendance.left("a", now_s + 31.03)
    assert attendance.wait_until(now_s + 31.03, ITERATION_S) == pytest.approx(now_s + 31.03 + LATE * 0.02)


def test_a_session_is_active_while_it_is_here_however_long_and_a_while_after() -> None:
    attendance = Attendance()
    assert attendance.active(0.0) == (0, False)
    attendance.came("prompt", 0.0, short=False)
    attendance.came("token", 0.0, short=True)
    assert attendance.active(1000.0) == (2, True), "whoever waits for a long iteration has not gone"
    attendance.left("token", 1000.0)
    assert attendance.active(1000.0 + RECENT_S / 2) == (2, True)
    assert attendance.active(1000.0 + RECENT_S) == (1, False)
