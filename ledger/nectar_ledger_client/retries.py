"""When to ask again. Every call of the API may be repeated: commands count by their IDs, receipts by their seq."""

import random
from dataclasses import dataclass

from nectar_ledger_client.errors import BusyError, LedgerClientError, UnreachableError


@dataclass(frozen=True)
class Retries:
    """How often one call is sent, and how long to wait between: twice as long each time, or what the ledger asks for.

    Waits are spread at random over their last half, so that clients do not come back together.
    """

    tries: int = 5
    first_s: float = 0.25
    longest_s: float = 30.0

    def pause_s(self, failures: int, error: LedgerClientError) -> float:
        """How long to wait after so many failures in a row, the last of which was `error`; raises it where asking
        again is of no use: there were enough tries, it would not pass, or the ledger asks for too long a wait.
        """
        asked_s = error.retry_after_s if isinstance(error, BusyError) else 0.0
        if failures >= self.tries or asked_s > self.longest_s or not isinstance(error, BusyError | UnreachableError):
            raise error
        wait_s = min(self.first_s * 2.0 ** min(failures - 1, 32), self.longest_s)
        spread = random.uniform(wait_s / 2, wait_s)
        return asked_s + spread if asked_s else spread


DEFAULT_RETRIES = Retries()
NO_RETRIES = Retries(tries=1)
