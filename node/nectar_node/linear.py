"""Linear layers on a CPU in float32, for the few rows of an iteration that several sessions share, and for replays.

PyTorch gives such products to BLAS, which is made for large matrices: some BLAS libraries copy the whole weight first.
oneDNN reads it in place. The two differ by rounding, so a session alone keeps to BLAS, as Transformers does, and its
hidden states are the whole model's bit for bit. A replay's are not in any case.
"""

import time
from collections.abc import Callable
from typing import TypeGuard

import torch
from torch import nn
from torch.nn import functional

TRIED_ROWS, TRIED_BYTES, RUNS = 8, 64 << 20, 5
WORTHWHILE = 0.9  # of BLAS's time, at most
TOLERANCE = 1e-4  # of the largest number that comes out

Product = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


class LinearLayers:
    """A model's linear layers. `together`: several sessions, or a replay, are being computed."""

    def __init__(self, model: nn.Module) -> None:
        layers = [layer for layer in model.modules() if _is_plain(layer)]
        self.together = False
        if layers and _is_faster(layers):
            for layer in layers:
                layer.__dict__["forward"] = _Forward(self, layer)  # the layer keeps its weights and its hooks


class _Forward:
    """Stands in for a layer's own."""

    def __init__(self, layers: LinearLayers, layer: nn.Linear) -> None:
        self._layers, self._layer = layers, layer

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        product = _onednn if self._layers.together else functional.linear
        return product(x, self._layer.weight, self._layer.bias)


def _is_plain(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """No subclass, which may compute something else; on a CPU and in float32."""
    return type(layer) is nn.Linear and layer.weight.device.type == "cpu" and layer.weight.dtype is torch.float32


@torch.inference_mode()
def _is_faster(layers: list[nn.Linear]) -> bool:
    """Does oneDNN need less time than BLAS for the same results?"""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    tried = _first_ones(layers)
    inputs = [torch.randn(TRIED_ROWS, layer.in_features) for layer in tried]
    spent_s: dict[Product, list[float]] = {functional.linear: [], _onednn: []}
    outputs: dict[Product, list[torch.Tensor]] = {}
    try:
        for _ in range(RUNS):
            for product, times_s in spent_s.items():
                started_s = time.perf_counter()
                outputs[product] = [product(x, at.weight, at.bias) for x, at in zip(inputs, tried, strict=True)]
                times_s.append(time.perf_counter() - started_s)
    except (RuntimeError, AttributeError):  # this build of PyTorch has no such kernel
        return False
    blas_s, onednn_s = (min(times_s) for times_s in spent_s.values())
    return onednn_s < WORTHWHILE * blas_s and all(map(_agree, *outputs.values()))


def _first_ones(layers: list[nn.Linear]) -> list[nn.Linear]:
    """So many that caches do not keep them, as in a model."""
    chosen, nbytes = [], 0
    for layer in layers:
        if nbytes >= TRIED_BYTES:
            break
        chosen.append(layer)
        nbytes += layer.weight.nbytes
    return chosen


def _agree(output: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(output, other, rtol=0, atol=TOLERANCE * float(other.abs().max()))


def _onednn(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
