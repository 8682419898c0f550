"""Whom an iteration waits for: those who decode and usually come soon, where all together lose less than they win."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_node.attendance import DEVIATIONS, RECENT_S, Attendance

ITERATION_S = 1.0


def flat(rows: int) -> float:
    """Weights are read once for all: what small batches cost."""
    return ITERATION_S


def linear(rows: int) -> float:
    """Nothing is shared: what large batches cost."""
    return ITERATION_S * rows


def returning(absence_s: float, *, rows: int = 1, short: bool = True, keys: str = "a") -> Attendance:
    """Sessions that left at 0, after each had come back once from so long an absence."""
    attendance = Attendance()
    for key in keys:
        come_back(attendance, key, absence_s, rows=rows, short=short)
    return attendance


def come_back(
    attendance: Attendance, key: str, absence_s: float, *, rows: int = 1, short: bool = True, paid: bool = False
) -> None:
    attendance.came(key, -absence_s - 2.0, rows, short=short, paid=paid)
    attendance.left(key, -absence_s - 1.0)
    attendance.came(key, -1.0, rows, short=short, paid=paid)
    attendance.left(key, 0.0)


def test_those_who_usually_come_soon_are_waited_for_until_they_are_late() -> None:
    attendance = returning(0.02)
    assert attendance.wait_until(0.0, 1, flat) == pytest.approx(0.02)
    assert attendance.wait_until(0.021, 1, flat) == -math.inf, "it is late"


def test_the_last_who_is_worth_it_decides() -> None:
    attendance = returning(0.02, keys="ab")
    come_back(attendance, "c", 0.05)
    come_back(attendance, "d", 0.9)
    assert attendance.wait_until(0.0, 2, flat) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("absence_s", "short", "iteration_s"),
    [(0.02, True, linear), (0.9, True, flat), (60.0, True, flat), (0.02, False, flat)],
    ids=["nothing to share", "too long an absence", "somebody who thinks", "prompts alone"],
)
def test_nobody_else_is_waited_for(absence_s: float, short: bool, iteration_s: Callable[[int], float]) -> None:
    assert returning(absence_s, short=short).wait_until(0.0, 1, iteration_s) == -math.inf


def test_many_do_not_wait_for_one_but_one_waits_for_many() -> None:
    assert returning(0.15).wait_until(0.0, 7, flat) == -math.inf
    assert returning(0.15, keys="abcdefg").wait_until(0.0, 1, flat) == pytest.approx(0.15)
    assert returning(0.15, rows=7).wait_until(0.0, 1, flat) == pytest.approx(0.15), "one of seven rows counts as seven"


@given(
    here=st.integers(1, 64),
    absences_s=st.lists(st.floats(0.001, 2.0), max_size=8),
    fixed_s=st.floats(0.0, 1.0),
    row_s=st.floats(0.0, 0.2),
)
def test_nobody_waits_longer_than_what_sharing_saves(
    here: int, absences_s: list[float], fixed_s: float, row_s: float
) -> None:
    attendance = Attendance()
    for key, absence_s in enumerate(absences_s):
        come_back(attendance, str(key), absence_s)
    until_s = attendance.wait_until(0.0, here, lambda rows: fixed_s + row_s * rows)
    assert until_s == -math.inf or 0 < until_s <= fixed_s


def test_who_is_here_is_not_waited_for() -> None:
    attendance = returning(0.02)
    attendance.came("a", 0.01, 1, short=True)
    assert attendance.wait_until(0.01, 1, flat) == -math.inf


def test_who_has_come_once_is_not_known_and_who_is_forgotten_no_longer() -> None:
    attendance = Attendance()
    attendance.came("new", 0.0, 1, short=True)
    attendance.left("new", 1.0)
    assert attendance.wait_until(1.0, 1, flat) == -math.inf
    known = returning(0.02)
    known.forget("a")
    known.left("a", 5.0)  # its last step was done after it had ended
    assert known.wait_until(0.0, 1, flat) == -math.inf
    assert known.active(5.0) == (0, False)


def test_an_absence_is_smoothed_and_that_of_a_reader_is_forgotten() -> None:
    attendance, now_s = returning(0.02), 0.0
    for _ in range(60):
        now_s += 0.04
        attendance.came("a", now_s, 1, short=True)
        attendance.left("a", now_s)
    assert attendance.wait_until(now_s, 1, flat) == pytest.approx(now_s + 0.04, rel=1e-3)
    attendance.came("a", now_s + 30.0, 40, short=False)  # its next message
    attendance.left("a", now_s + 31.0)
    attendance.came("a", now_s + 31.02, 1, short=True)
    attendance.left("a", now_s + 31.03)
    assert attendance.wait_until(now_s + 31.03, 1, flat) == pytest.approx(now_s + 31.03 + 0.02)


def test_whoever_comes_at_odd_times_is_waited_for_longer() -> None:
    attendance, now_s = returning(0.02), 0.0
    for turn in range(60):
        now_s += 0.03 if turn % 2 else 0.01
        attendance.came("a", now_s, 1, short=True)
        attendance.left("a", now_s)
    wait_s = attendance.wait_until(now_s, 1, flat) - now_s
    assert wait_s == pytest.approx(0.02 + DEVIATIONS * 0.01, rel=0.2)
    assert wait_s > 0.03


def test_a_session_is_active_while_it_is_here_however_long_and_a_while_after() -> None:
    attendance = Attendance()
    assert attendance.active(0.0) == (0, False)
    attendance.came("prompt", 0.0, 40, short=False)
    attendance.came("token", 0.0, 1, short=True)
    assert attendance.active(1000.0) == (2, True), "whoever waits for a long iteration has not gone"
    attendance.left("token", 1000.0)
    assert attendance.active(1000.0 + RECENT_S / 2) == (2, True)
    assert attendance.active(1000.0 + RECENT_S) == (1, False)


def test_whoever_pays_waits_for_its_like_alone() -> None:
    attendance = returning(0.05, keys="abc")
    assert attendance.wait_until(0.0, 1, flat, only_paid=True) == -math.inf
    come_back(attendance, "d", 0.02, paid=True)
    assert attendance.wait_until(0.0, 1, flat, only_paid=True) == pytest.approx(0.02)
    assert attendance.wait_until(0.0, 1, flat) == pytest.approx(0.05)


def test_somebody_pays_while_they_are_here_and_a_while_after() -> None:
    attendance = returning(0.02)
    assert not attendance.somebody_pays(0.0)
    come_back(attendance, "b", 0.02, paid=True)
    assert attendance.somebody_pays(RECENT_S / 2)
    assert not attendance.somebody_pays(RECENT_S)
    attendance.came("b", 10.0, 1, short=True)
    assert not attendance.somebody_pays(10.0), "it no longer pays"


def test_those_who_do_not_pay_wait_a_little_for_those_who_do() -> None:
    attendance = returning(0.01)
    assert attendance.paid_until(0.0, 1.0) == -math.inf, "nobody pays"
    come_back(attendance, "b", 0.05, paid=True)
    come_back(attendance, "c", 0.02, paid=True)
    come_back(attendance, "d", 0.01, paid=True, short=False)
    assert attendance.paid_until(0.0, 1.0) == pytest.approx(0.02)
    assert attendance.paid_until(0.0, 0.01) == -math.inf, "too long"
    assert attendance.paid_until(0.03, 1.0) == pytest.approx(0.05), "one is late"
