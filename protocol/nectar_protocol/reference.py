"""The reference rule: what a block costs by its shape, whatever code or hardware runs it.

Two FLOPs per weight that takes part in a token (matrices, norms and a router alike), and for attention two per product
of query and key and two per product of score and value, at each position looked at. A state that is carried along
instead of positions is written and read once per token, two FLOPs each. The numbers come from a model's configuration
and its weights; this module reads neither.
"""

from dataclasses import dataclass

from nectar_protocol.errors import MalformedError
from nectar_protocol.modelentry import BlockCost


@dataclass(frozen=True)
class Attention:
    """Softmax attention: `heads` of queries, each against keys of `key_dim` and values of `value_dim`.

    Plain and grouped-query attention have key_dim = value_dim = head_dim. Latent attention (MLA) counts what it is
    before its matrices are folded: key_dim = the rotated and the unrotated part together, value_dim = that of its
    values. `window` is a sliding window's or a chunk's length; 0 is none.
    """

    heads: int
    key_dim: int
    value_dim: int
    window: int = 0


@dataclass(frozen=True)
class LinearAttention:
    """Linear attention or a state-space layer: `heads` states of key_dim × value_dim numbers."""

    heads: int
    key_dim: int
    value_dim: int


@dataclass(frozen=True)
class Experts:
    """A mixture: of `count` experts of `parameters` weights each, `active` take part in a token.

    Experts that always run are not among them.
    """

    count: int
    active: int
    parameters: int


def active_parameters(parameters: int, experts: Experts | None = None) -> int:
    """The weights of a block that take part in one token, of `parameters` in all. Raises MalformedError."""
    if experts is None:
        return parameters
    if not 0 < experts.active <= experts.count or experts.count * experts.parameters > parameters:
        raise MalformedError(f"{experts} are not the experts of a block of {parameters} weights")
    return parameters - (experts.count - experts.active) * experts.parameters


def reference_flops(parameters: int, mixer: Attention | LinearAttention, experts: Experts | None = None) -> BlockCost:
    """The cost of a block of `parameters` weights. Raises MalformedError for numbers that are no block's."""
    if min(parameters, mixer.heads, mixer.key_dim, mixer.value_dim) <= 0:
        raise MalformedError(f"a block of {parameters} weights with {mixer}")
    token_flops = 2 * active_parameters(parameters, experts)
    if isinstance(mixer, LinearAttention):
        return BlockCost(token_flops + 4 * mixer.heads * mixer.key_dim * mixer.value_dim, 0)
    return BlockCost(token_flops, 2 * mixer.heads * (mixer.key_dim + mixer.value_dim), mixer.window)
