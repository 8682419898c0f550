"""The wire's words for what they are not meant for: each gains today, which is wrong."""

from collections.abc import Callable

import pytest

from benchmarks.economy.gain import Gain
from benchmarks.economy.shortcuts import bill_unheard, feign_replays, pad_steps, refuse_replay


@pytest.mark.parametrize(
    "cheat",
    [
        pytest.param(pad_steps, marks=pytest.mark.xfail(strict=True, reason="two tokens cost half of one")),
        pytest.param(feign_replays, marks=pytest.mark.xfail(strict=True, reason="who decodes may call it a replay")),
        pytest.param(refuse_replay, marks=pytest.mark.xfail(strict=True, reason="a replay is let in past the window")),
        pytest.param(bill_unheard, marks=pytest.mark.xfail(strict=True, reason="bills are signed before outputs come")),
    ],
)
def test_no_shortcut_gains(cheat: Callable[[], Gain]) -> None:
    assert cheat().beyond <= 0
