"""When to ask a hub again, and what to tell the user whom it refuses for good."""

import logging
import time
from dataclasses import dataclass

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

BUSY = (408, 429, 500, 502, 503, 504)
TOKEN_HINT = "log in with `hf auth login`, or set HF_TOKEN"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retries:
    """How often a hub is asked in vain, and how long between: twice as long each time, or what it asks for."""

    tries: int = 5
    first_s: float = 0.5
    longest_s: float = 30.0

    def pause(self, failures: int, error: Exception) -> None:
        """Wait before asking again after so many failures in a row; raises `error` where that is of no use."""
        if failures >= self.tries or not is_passing(error):
            raise error
        wait_s = min(self.first_s * 2 ** (failures - 1), self.longest_s)
        asked_s = _retry_after_s(error)
        if asked_s is not None and asked_s > self.longest_s:
            raise error
        log.info("the hub failed (%s), asking again in %.1f s", error, asked_s or wait_s)
        time.sleep(max(wait_s, asked_s or 0))


def is_passing(error: Exception) -> bool:
    """May the same question have an answer later? Whatever is not an answer is the network's failure."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in BUSY
    return not isinstance(error, OfflineModeIsEnabled)


def _retry_after_s(error: Exception) -> int | None:
    """What the hub asks for, in seconds; it may give a date, which is left alone."""
    value = error.response.headers.get("Retry-After", "") if isinstance(error, HfHubHTTPError) else ""
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else None


def explain(error: Exception, name: str, revision: str = "main") -> str:
    """What is wrong with a repository, and what to do."""
    if isinstance(error, GatedRepoError):
        return f"{name} is gated: ask for access on its page at the hub, then {TOKEN_HINT}"
    if isinstance(error, RevisionNotFoundError):
        return f"{name} has no revision {revision} on the hub"
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no model {name!r} here or on the hub; check the spelling. If it is private, {TOKEN_HINT}"
    if not isinstance(error, HfHubHTTPError):
        return f"the hub cannot be reached: check the network ({type(error).__name__}: {error})"
    status = error.response.status_code
    if status in (401, 403):
        return f"the hub refuses it ({status}): {TOKEN_HINT}"
    if status == 429:
        asked_s = _retry_after_s(error)
        return f"too many requests; try again {f'in {asked_s} s' if asked_s else 'later'}, and {TOKEN_HINT}"
    return f"the hub answers {status}; try again later" if status in BUSY else f"the hub answers {status}"
