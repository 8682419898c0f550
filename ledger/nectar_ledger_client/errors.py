"""The error tree of the ledger's client. Every message says what to do."""

from http import HTTPStatus


class LedgerClientError(Exception):
    """Something went wrong between this client and its ledger."""


class UnreachableError(LedgerClientError):
    """The ledger did not answer, or not in time. It may have done what it was asked: the same may be sent again."""


class BusyError(LedgerClientError):
    """The ledger has too much to do, or this client asks too often; it may ask again after `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RefusedError(LedgerClientError):
    """The ledger said no. `code` is for programs, `message` for people, `status` is that of HTTP."""

    def __init__(self, code: str, message: str, status: int) -> None:
        super().__init__(f"the ledger refuses: {message} ({code})")
        self.code = code
        self.message = message
        self.status = status

    @property
    def is_not_found(self) -> bool:
        """Does the ledger have no such thing?"""
        return self.status == HTTPStatus.NOT_FOUND


class UntrustedError(LedgerClientError):
    """An answer, or a file, that does not verify. Believe nothing that came with it."""


class NotYetError(LedgerClientError):
    """No checkpoint that enough have signed covers the entry yet; ask again later."""


class AnswerError(LedgerClientError):
    """The answer is not what a ledger's API says: another program answers at this address, or another version."""


class FileError(LedgerClientError):
    """A file of this client's cannot be read or written."""
