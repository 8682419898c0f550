"""The error tree of the ledger package. Every message says what to do."""


class LedgerError(Exception):
    """Something that an operator, or who sent a command, can act on went wrong in the ledger."""


class HomeError(LedgerError):
    """The ledger's data folder is not as it must be, or what was asked of the ledger in it is refused."""


class StoreError(LedgerError):
    """The database cannot be used as it is."""


class VersionError(StoreError):
    """The database's tables are older or newer than this program."""


class DamagedError(StoreError):
    """What the database holds contradicts itself."""


class LockedError(StoreError):
    """Another process is this ledger's sequencer."""


class LostError(StoreError):
    """Somebody else has written to the log, or the connection that holds the sequencer's lock has ended."""


class FullError(LedgerError):
    """Too much waits already; it may be sent again after `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotRecordedError(LedgerError):
    """A batch was not committed, and nothing of it is in the log; it may be sent again."""


class StoppedError(LedgerError):
    """The sequencer has ended. What was sent may be recorded or not: send it again once the ledger is back."""


class NotFoundError(LedgerError):
    """The log has no such entry or tile."""


class ForkError(LedgerError):
    """The log is not a continuation of what it has signed; nothing more may be signed under its origin."""


class ListenError(LedgerError):
    """The address cannot be listened on."""


class WitnessError(LedgerError):
    """A witness, or the list of them, is not as it must be."""


class InvariantError(LedgerError):
    """The log, or what was about to be added to it, breaks a rule of the ledger. Nothing of it is recorded."""


class ReplayError(InvariantError):
    """A log cannot be replayed beyond the entry at `index`."""

    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index = index
