"""What links hold is bounded, each and all together, and it is the one that holds most that pays."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_swarm import backlog
from nectar_swarm.backlog import Backlog


@dataclass(eq=False)
class Holding:
    """A link that holds what the test says."""

    backlog: Backlog
    backlog_bytes: int = 0
    error: Exception | None = None

    def abort(self, error: Exception) -> None:
        self.error, self.backlog_bytes = error, 0
        self.backlog.weigh(self)

    def hold(self, size: int) -> "Holding":
        self.backlog_bytes = size
        self.backlog.weigh(self)
        return self


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MAX_BACKLOG", 100)
    monkeypatch.setattr(backlog, "MAX_TOTAL_BACKLOG", 250)


def test_a_link_that_holds_too_much_is_aborted() -> None:
    all_links = Backlog()
    assert Holding(all_links).hold(100).error is None
    assert "reads nothing" in str(Holding(all_links).hold(101).error)


def test_of_all_links_the_worst_is_aborted() -> None:
    all_links = Backlog()
    one, worst, last = Holding(all_links).hold(80), Holding(all_links).hold(90), Holding(all_links).hold(81)
    assert "on all links" in str(worst.error)
    assert one.error is last.error is None


def test_what_has_left_meanwhile_does_not_count() -> None:
    all_links = Backlog()
    links = [Holding(all_links).hold(90) for _ in range(2)]
    links[0].backlog_bytes = 0  # it was sent, and nobody has weighed the link since
    links.append(Holding(all_links).hold(90))
    assert [link.error for link in links] == [None, None, None]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 120)), max_size=60))
def test_the_bounds_hold_whatever_is_sent(sizes: list[tuple[int, int]]) -> None:
    all_links = Backlog()
    links = [Holding(all_links) for _ in range(6)]
    for at, size in sizes:
        links[at].hold(size)
        assert max(link.backlog_bytes for link in links) <= 100
        assert sum(link.backlog_bytes for link in links) <= 250
