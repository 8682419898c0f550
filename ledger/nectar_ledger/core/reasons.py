"""Why the ledger says no: a code for programs, words for people. The codes are part of the API."""

from enum import StrEnum


class Reason(StrEnum):
    """Each is refused before anything is recorded."""

    FOREIGN_LEDGER = "foreign-ledger"
    COMMAND_EXPIRED = "command-expired"
    CONFLICT = "conflict"
    NOT_AUTHORIZED = "not-authorized"
    UNKNOWN_POLICY = "unknown-policy"
    UNKNOWN_MODEL = "unknown-model"
    UNKNOWN_NODE = "unknown-node"
    UNKNOWN_HOLD = "unknown-hold"
    UNKNOWN_BATCH = "unknown-batch"
    WRONG_VERSION = "wrong-version"
    WRONG_EXPIRY = "wrong-expiry"
    WRONG_AMOUNT = "wrong-amount"
    WRONG_CAP = "wrong-cap"
    WRONG_REVISION = "wrong-revision"
    INSUFFICIENT_FUNDS = "insufficient-funds"
    TOO_MANY_HOLDS = "too-many-holds"
    ALREADY_BOUND = "already-bound"
    BATCH_FULL = "batch-full"
    # Of receipts.
    NO_LINE = "no-line"
    WRONG_SESSION = "wrong-session"
    WRONG_PROFILE = "wrong-profile"
    WRONG_TOTALS = "wrong-totals"
    WRONG_UNITS = "wrong-units"
    OVER_CAP = "over-cap"
    LINE_FINAL = "line-final"
    HOLD_EXPIRED = "hold-expired"


class Refused(Exception):
    """A command or a receipt that the state of the ledger does not allow."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
