"""The benchmark runs on a real node, and measures each of its keys."""

from dataclasses import replace

import pytest

from benchmarks.serving import KEYS, MEASUREMENTS, QUICK, run


def test_each_key_is_measured_once() -> None:
    measured = [name for measurement in MEASUREMENTS for name in measurement.keys]
    assert sorted(measured) == sorted(key.name for key in KEYS)


def test_what_is_asked_for_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NECTAR_CACHE", "")  # so that what the run sets is taken back
    scale = replace(QUICK, first_tokens=2, tiny_rounds=1, tiny_tokens=8)
    serving = run(scale, ["ttft_ratio", "batch_ratio_8_tiny"])
    assert set(serving.values) == {"ttft_ratio", "batch_ratio_8_tiny"}
    assert all(value > 0 for value in serving.values.values())
    assert serving.raw["tiny_one_node_first_token_s"] > 0
