"""What a node says it received in a session, held against what it billed. No I/O."""

import hashlib

from nectar_swarm.messages import Step
from nectar_swarm.past import Past
from nectar_swarm.vectors import vector_digests

from nectar.line import Line, Took
from nectar.trail import joined

MAX_PARTS = 1 << 22


class WrongPastError(Exception):
    """A node's history is not that of what it billed."""


class Inquiry:
    """Takes the parts of one node's history as they come; `steps` are kept if they are wanted."""

    def __init__(self, line: Line, keep: bool) -> None:
        self.line, self.done = line, False
        self.steps: list[Step] = []
        self._keep, self._next, self._count = keep, 1, 0
        self._billed = list(line.took)
        self._found = 0

    def take(self, part: Past) -> None:
        """Raises WrongPastError."""
        if self.done or part.count > MAX_PARTS or (self._count and part.count != self._count):
            raise WrongPastError("its history changes while it is told")
        if part.step is not None:
            if part.number != self._next:
                raise WrongPastError(f"part {part.number} of its history instead of {self._next}")
            self._count, self._next = part.count, self._next + 1
            self._compare(part.step)
        self.done = self._next > part.count
        if self.done and self._found < len(self._billed):
            missing = self._billed[self._found]
            raise WrongPastError(f"it billed step {missing.last} and has not received it as it did")

    def _compare(self, step: Step) -> None:
        """Steps that came twice were billed once; those that came last may not have been billed."""
        if self._keep:
            self.steps.append(step)
        if self._found == len(self._billed):
            return
        due = self._billed[self._found]
        if due.last == step.last and due == self._took(step, due):
            self._found += 1

    def _took(self, step: Step, due: Took) -> Took:
        inputs = hashlib.sha256(joined(vector_digests(self.line.terms.salt, step.hidden))).digest()
        return Took(due.first, step.last, step.position, step.hidden.shape[1], tuple(step.reorder), inputs)
