"""The error tree of the client. Every message says what to do."""

from collections.abc import Sequence


class ClientError(Exception):
    """Something went wrong between this client and its swarm."""


class NoRouteError(ClientError):
    """No chain of nodes serves all of the model's blocks; `missing` holds the spans that nobody serves."""

    reason = "nobody serves blocks {spans} of this model"

    def __init__(self, missing: Sequence[tuple[int, int]], hint: str = "") -> None:
        self.missing, self.hint = tuple(missing), hint
        spans = ", ".join(f"{start}:{stop}" for start, stop in missing)
        super().__init__(self.reason.format(spans=spans) + hint)


class UntrustedError(NoRouteError):
    """No trusted peer serves the block at one end, or at both; `missing` holds these."""

    reason = "no trusted peer serves blocks {spans} of this model, where your text goes in or comes out"


class ChosenRouteError(NoRouteError):
    """A node of a route that the user chose does not serve its blocks; `missing` holds these."""

    reason = "the nodes that you chose for blocks {spans} of this model do not serve them; choose others, or none"


class NoRoomError(NoRouteError):
    """All nodes that serve some of the blocks are full; `missing` holds these blocks."""

    reason = "no node that serves blocks {spans} of this model has KV left for this session"


class SessionError(ClientError):
    """A session cannot go on; the message says why."""


class RequestError(ClientError, ValueError):
    """What was asked for cannot be run through a swarm."""


class PaymentError(ClientError):
    """A session cannot be paid for as it was asked; the message says what to do."""


class InsufficientFundsError(PaymentError):
    """The account has fewer credits than the session must set aside."""


class BudgetError(PaymentError):
    """The session may set aside no more than its budget."""
