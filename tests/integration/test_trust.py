"""Real nodes: with trusted peers named, only these see where the text goes in and comes out, also after a death."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from nectar.errors import UntrustedError


@pytest.mark.slow
def test_both_ends_run_on_trusted_nodes_and_a_repair_on_strangers_is_refused(
    start_node: Callable[..., Any], connect: Callable[..., Any], local: Any, tokens: Callable[..., torch.Tensor]
) -> None:
    stranger = start_node("0:8")
    first, last = start_node("0:3", stranger, wait=False), start_node("6:8", stranger, wait=False)
    for node in (first, last):
        node.wait()
    remote = connect(stranger.address, trusted_peers=[first.peer, last.peer])
    with remote.session(64) as session:
        text = remote.generate(tokens(8), session=session, max_new_tokens=4, do_sample=False)
        assert [(span.peer, span.start, span.stop) for span in session.route] == [
            (first.peer, 0, 3), (stranger.peer, 3, 6), (last.peer, 6, 8),
        ]  # fmt: skip
        first.kill()
        session.patience_s = 2.0
        with pytest.raises(UntrustedError, match="no trusted peer serves blocks 0:1 of this model"):
            remote.generate(text, session=session, max_new_tokens=4, do_sample=False)
    with remote.session(64, trusted_peers=[stranger.peer]) as session:
        out = remote.generate(text, session=session, max_new_tokens=4, do_sample=False)
        assert {session.route[0].peer, session.route[-1].peer} == {stranger.peer}
    assert torch.equal(out, local.generate(tokens(8), max_new_tokens=8, do_sample=False))
