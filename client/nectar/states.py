"""`output_hidden_states` of a model whose blocks are remote: what goes into each block, and what the model makes of the
last one's output.

Transformers collects them from blocks that it has; here there is one for all of them.
"""

from collections.abc import Callable
from typing import Any

import torch
from transformers.utils.output_capturing import selected_hidden_states

from nectar.errors import RequestError


def with_hidden_states(model: Any, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The model's forward; with hidden states if they are asked for, at the price of a round trip for each block.

    Raises RequestError for attention weights, which stay with the nodes.
    """
    if kwargs.get("output_attentions", model.config.output_attentions):
        raise RequestError("attention weights stay on the nodes; leave output_attentions out")
    wanted = kwargs.get("output_hidden_states", model.config.output_hidden_states)
    if wanted is None or wanted is False:
        return forward(*args, **kwargs)
    last: list[torch.Tensor] = []
    hook = model.decoder_stack.register_forward_hook(lambda module, given, out: last.append(out[0]))
    try:
        with model.chain.keeping_inputs() as states:
            out = forward(*args, **kwargs | {"output_hidden_states": False, "return_dict": True})
    finally:
        hook.remove()
    out["hidden_states"] = _selected([*states, *last], wanted)
    return out if kwargs.get("return_dict", model.config.return_dict) is not False else out.to_tuple()


def _selected(states: list[torch.Tensor], wanted: bool | int | list[int]) -> tuple[torch.Tensor | None, ...]:
    """All of them, or those of some numbers and None, as Transformers has it, in the place of the others."""
    numbers = selected_hidden_states(wanted)
    if numbers is None:
        return tuple(states)
    chosen = {number % len(states) for number in numbers if -len(states) <= number < len(states)}
    return tuple(state if number in chosen else None for number, state in enumerate(states))
