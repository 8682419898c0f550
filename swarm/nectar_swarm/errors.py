"""The error tree of the swarm package. Every message says what to do."""


class SwarmError(Exception):
    """Something a user can act on went wrong in the swarm."""


class KeyFileError(SwarmError):
    """The key file cannot be read, written, or does not hold an Ed25519 key."""


class HostError(SwarmError):
    """The libp2p daemon could not be started or has ended."""


class AddressInUseError(HostError):
    """Another program listens on the port."""


class UnreachableError(SwarmError, ConnectionError):
    """A peer cannot be dialled, or did not answer in time."""


class RelayRefusedError(UnreachableError):
    """A relay said no; `answer` is what it said."""

    def __init__(self, message: str, answer: int) -> None:
        super().__init__(message)
        self.answer = answer


class WireError(SwarmError):
    """A peer sent bytes that break the wire protocol; its link is closed."""


class RefusedError(SwarmError):
    """A peer asked for more than it can have at once, or for what it may not have."""


class CheckpointError(SwarmError):
    """The model's files are missing, damaged, or do not hold what is asked of them."""


class DiskError(CheckpointError):
    """There is no room for the model's files, or the cache folder cannot be written."""


class UnsupportedModelError(SwarmError):
    """Nectar cannot find or run this model's blocks."""
