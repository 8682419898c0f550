"""The error tree of the client. Every message says what to do."""

from collections.abc import Sequence


class ClientError(Exception):
    """Something went wrong between this client and its swarm."""


class NoRouteError(ClientError):
    """No chain of nodes serves all of the model's blocks; `missing` holds the spans that nobody serves."""

    def __init__(self, missing: Sequence[tuple[int, int]], hint: str = "") -> None:
        self.missing = tuple(missing)
        spans = ", ".join(f"{start}:{stop}" for start, stop in missing)
        super().__init__(f"nobody serves blocks {spans} of this model{hint}")


class SessionError(ClientError):
    """A session cannot go on; the message says why."""


class RequestError(ClientError, ValueError):
    """What was asked for cannot be run through a swarm."""
