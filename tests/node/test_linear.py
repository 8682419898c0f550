"""Linear layers of several sessions go where they are faster; those of one stay what they were."""

from types import SimpleNamespace

import pytest
import torch
from nectar_node import linear as linear_module
from nectar_node.linear import LinearLayers
from torch import nn
from torch.nn import functional

WIDTH = 16


class Own(nn.Linear):
    """What somebody made of a linear layer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 1


@pytest.fixture
def blas_takes(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How often longer than oneDNN BLAS takes; a clock that says so."""
    factor, now_s = [2.0], [0.0]

    def onednn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        now_s[0] += 1.0
        return linear(x.double(), weight.double(), None if bias is None else bias.double()).float()

    def blas(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        now_s[0] += factor[0]
        return linear(x, weight, bias)

    linear = functional.linear
    monkeypatch.setattr(linear_module, "_onednn", onednn)
    monkeypatch.setattr(functional, "linear", blas)
    monkeypatch.setattr(linear_module, "time", SimpleNamespace(perf_counter=lambda: now_s[0]))
    return factor


def stack(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(layers or (nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * WIDTH, bias=False))))


def test_several_sessions_are_computed_by_the_faster_and_one_bitwise_as_ever(blas_takes: list[float]) -> None:
    model, x = stack(), torch.randn(1, 5, WIDTH)
    expected = model(x)
    layers = LinearLayers(model)
    assert torch.equal(model(x), expected)
    layers.together = True
    out = model(x)
    assert not torch.equal(out, expected)
    torch.testing.assert_close(out, expected)


def test_where_nothing_is_gained_nothing_is_changed(blas_takes: list[float]) -> None:
    blas_takes[0] = 1.0
    model, x = stack(), torch.randn(5, WIDTH)
    expected = model(x)
    LinearLayers(model).together = True
    assert torch.equal(model(x), expected)
    assert not any("forward" in vars(layer) for layer in model)


def test_a_kernel_that_computes_something_else_is_not_used(
    blas_takes: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = linear_module._onednn
    monkeypatch.setattr(linear_module, "_onednn", lambda x, weight, bias: right(x, weight, bias) * 1.01)
    model = stack()
    LinearLayers(model)
    assert not any("forward" in vars(layer) for layer in model)


def test_a_build_without_the_kernel_goes_on_without(blas_takes: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object) -> torch.Tensor:
        raise AttributeError("no such operator")

    monkeypatch.setattr(linear_module, "_onednn", missing)
    model = stack()
    LinearLayers(model)
    assert not any("forward" in vars(layer) for layer in model)


@pytest.mark.parametrize("layer", [Own(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH, dtype=torch.bfloat16), nn.ReLU()])
def test_other_layers_are_left_alone(blas_takes: list[float], layer: nn.Module) -> None:
    model = stack(layer)
    LinearLayers(model)
    assert "forward" not in vars(layer)


def test_the_real_kernel_gives_what_blas_gives() -> None:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        pytest.skip("this build of PyTorch has no oneDNN")
    torch.manual_seed(0)
    for layer in (nn.Linear(64, 48), nn.Linear(64, 48, bias=False)):
        x = torch.randn(1, 7, 64)
        with torch.inference_mode():
            torch.testing.assert_close(linear_module._onednn(x, layer.weight, layer.bias), layer(x))
