"""The wire's words for what they are not meant for: none of them gains."""

from collections.abc import Callable

import pytest

from benchmarks.economy.gain import Gain
from benchmarks.economy.shortcuts import bill_unheard, feign_replays, pad_steps, refuse_replay


@pytest.mark.parametrize("cheat", [pad_steps, feign_replays, refuse_replay, bill_unheard])
def test_no_shortcut_gains(cheat: Callable[[], Gain]) -> None:
    assert cheat().beyond <= 0
