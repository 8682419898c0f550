"""Real nodes take other blocks when the swarm needs it, and sessions go on."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

FAST = ("--pace", "10", "--drain", "5")


@pytest.mark.slow
def test_when_the_only_node_of_some_blocks_dies_one_of_two_others_takes_them_and_the_session_goes_on(
    start_node: Callable[..., Any], connect: Callable[..., Any], local: Any, tokens: Callable[..., torch.Tensor]
) -> None:
    """The session runs through the node that moves, which hands it over to its twin first."""
    lost = start_node("0:4", options=FAST)
    mover = start_node(None, lost, options=(*FAST, "--max-blocks", "4"))
    assert (mover.serving["start"], mover.serving["stop"]) == (4, 8)
    remote = connect(mover.address, patience_s=120.0)
    with remote.session(128) as session:
        text = remote.generate(tokens(16), session=session, max_new_tokens=8, do_sample=False)
        twin = start_node("4:8", mover, options=FAST)
        assert [hop.peer for hop in session.route] == [lost.peer, mover.peer]
        lost.stop()
        out = remote.generate(text, session=session, max_new_tokens=8, do_sample=False)
        assert torch.equal(out, local.generate(tokens(16), max_new_tokens=16, do_sample=False))
        mover.wait()
        assert (mover.serving["start"], mover.serving["stop"]) == (0, 4)
        assert [hop.peer for hop in session.route] == [mover.peer, twin.peer]
