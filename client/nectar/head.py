"""One large head for all threads of a process: whoever comes first computes for all that wait.

A large vocabulary's matrix is read from memory once for each call, however many rows the call has. Nobody waits for
company: a call that finds the head free is computed at once and as it came, so that alone its logits are what they
always were, bit for bit. Computed together they differ by rounding, as in any batch.
"""

import threading
from typing import Any

import torch
from torch import nn
from torch.nn import functional

LARGE = 1 << 23  # parameters; a smaller head takes less time than threads that wait for each other
MAX_ROWS = 64


class SharedHead:
    """Stands in for the `forward` of a linear layer."""

    def __init__(self, head: nn.Linear) -> None:
        self._head, self._forward = head, head.forward
        self._lock = threading.Lock()
        self._waiting: list[_Call] = []
        self._computing = False

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        if not self._fits(hidden):
            return self._forward(hidden)
        call = _Call(hidden)
        with self._lock:
            self._waiting.append(call)
            call.leads, self._computing = not self._computing, True
        if not call.leads:
            self._wait(call)
        if call.leads:
            self._lead()
        return self._forward(hidden) if call.logits is None else call.logits

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def _fits(self, hidden: torch.Tensor) -> bool:
        """Can these rows be computed together with others? What would fail is left to fail alone."""
        weight = self._head.weight
        return (
            not torch.is_grad_enabled()
            and hidden.device.type == weight.device.type == "cpu"
            and (hidden.dtype, hidden.shape[-1]) == (weight.dtype, weight.shape[1])
            and 0 < hidden.shape[:-1].numel() <= MAX_ROWS
        )

    def _wait(self, call: "_Call") -> None:
        try:
            call.settled.wait()
        except BaseException:  # an interrupted thread must not take the lead away with it
            with self._lock:
                if call in self._waiting:
                    self._waiting.remove(call)
                    if call.leads:
                        self._appoint()
            raise

    def _lead(self) -> None:
        """Compute for all that wait, this thread first among them, and let the next one lead."""
        batch: list[_Call] = []
        with self._lock:
            while self._waiting and sum(call.rows for call in [*batch, self._waiting[0]]) <= MAX_ROWS:
                batch.append(self._waiting.pop(0))
        try:
            self._compute(batch)
        finally:
            with self._lock:
                self._appoint()
            for call in batch:
                call.settled.set()

    def _appoint(self) -> None:
        """With the lock held: who has waited longest leads, if anybody waits."""
        self._computing = bool(self._waiting)
        if self._waiting:
            self._waiting[0].leads = True
            self._waiting[0].settled.set()

    def _compute(self, batch: "list[_Call]") -> None:
        if len(batch) == 1:
            batch[0].logits = self._forward(batch[0].hidden)
            return
        logits = _multiply(torch.cat([call.hidden.flatten(0, -2) for call in batch]), self._head)
        for call, part in zip(batch, torch.split(logits, [call.rows for call in batch]), strict=True):
            call.logits = part.view(*call.hidden.shape[:-1], -1)


class _Call:
    """One thread's rows. Once `settled` it has its logits, or `leads`, or must be computed alone."""

    def __init__(self, hidden: torch.Tensor) -> None:
        self.hidden, self.rows = hidden, hidden.shape[:-1].numel()
        self.logits: torch.Tensor | None = None
        self.leads = False
        self.settled = threading.Event()


def _multiply(rows: torch.Tensor, head: nn.Linear) -> torch.Tensor:
    """Several rows at once. BLAS copies the whole matrix for that; oneDNN, where PyTorch has it, reads it in place."""
    if rows.dtype is torch.float32 and torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return torch.ops.mkldnn._linear_pointwise(rows, head.weight, head.bias, "none", [], "")
    return functional.linear(rows, head.weight, head.bias)


def share_head(model: Any) -> None:
    """Let the threads that use a model share its head, if that is large."""
    head = model.get_output_embeddings()
    if isinstance(head, nn.Linear) and head.weight.numel() >= LARGE:
        head.__dict__["forward"] = SharedHead(head)  # the layer keeps its weights and its hooks
