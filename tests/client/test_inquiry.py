"""A history is believed if all that was billed is in it, as it was billed."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nectar.inquiry import Inquiry, WrongPastError
from nectar_swarm.messages import Step
from nectar_swarm.past import Past

from tests.client.accounts import Biller, Play


class Witness(Play):
    """A session whose second node keeps what it received."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, deadly=0)
        self.witness = self.nodes[1]
        self.received: list[Step] = []
        take = Biller.take

        def remember(step: Step, noise: torch.Generator) -> None:
            self.received.append(step)
            take(self.witness, step, noise)

        self.witness.take = remember  # type: ignore[method-assign]

    def live(self) -> "Witness":
        for _ in range(8):
            self.step()
        for node in self.nodes:
            self.bill(node)
        return self


def ask(play: Witness, steps: list[Step]) -> list[Step]:
    inquiry = Inquiry(play.witness.line, keep=True)
    for number, step in enumerate(steps, 1):
        inquiry.take(Past.unpack(Past(len(steps), number, step).pack()))
    assert inquiry.done
    return inquiry.steps


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_what_was_received_is_what_was_billed(seed: int) -> None:
    play = Witness(seed).live()
    assert ask(play, play.received) == play.received
    play.ask(1)
    play.flow()
    assert ask(play, play.received) == play.received  # with what is not billed yet


LIES: dict[str, Callable[[list[Step]], list[Step]]] = {
    "a step is missing": lambda steps: steps[1:],
    "another vector": lambda steps: [replace(steps[0], hidden=steps[0].hidden + 1), *steps[1:]],
    "another place": lambda steps: [replace(steps[0], position=steps[0].position + 1), *steps[1:]],
    "another order": lambda steps: steps[::-1],
}


@pytest.mark.parametrize("lie", LIES)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_anything_else_is_found_out(lie: str, seed: int) -> None:
    play = Witness(seed).live()
    with pytest.raises(WrongPastError, match="has not received"):
        ask(play, LIES[lie](play.received))


def test_parts_come_once_and_in_order() -> None:
    play = Witness(0).live()
    inquiry = Inquiry(play.witness.line, keep=False)
    with pytest.raises(WrongPastError, match="part 2"):
        inquiry.take(Past(3, 2, play.received[0]))
    inquiry.take(Past(3, 1, play.received[0]))
    with pytest.raises(WrongPastError, match="changes"):
        inquiry.take(Past(4, 2, play.received[1]))
    with pytest.raises(WrongPastError, match="has not received"):
        Inquiry(play.witness.line, keep=False).take(Past(0, 0, None))
