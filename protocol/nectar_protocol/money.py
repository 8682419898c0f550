"""Credits: whole micro-credits (µcr), rounded down once, on running totals.

An amount on the wire is 0 to 2^53 − 1 µcr, about 9 × 10^9 credits; in JSON it is a decimal string. Prices are µcr for
10^6 units, so that at price 1,000,000 a unit costs one micro-credit. There is no float and no Decimal here.
"""

import re
from typing import NamedTuple

from nectar_protocol.errors import MalformedError

UCR_PER_CREDIT = 1_000_000
MILLION = 1_000_000
MAX_UCR = 2**53 - 1
CREDITS = re.compile(r"(0|[1-9][0-9]{0,9})(?:\.([0-9]{1,6}))?")
AMOUNT = re.compile(r"0|[1-9][0-9]{0,15}")


class Settlement(NamedTuple):
    """What one receipt moves out of a hold."""

    paid_ucr: int
    fee_ucr: int


def check_amount(ucr: int) -> int:
    """The same amount. Raises MalformedError unless it is 0 to 2^53 − 1."""
    if not 0 <= ucr <= MAX_UCR:
        raise MalformedError(f"{ucr} µcr; an amount is 0 to {MAX_UCR} µcr")
    return ucr


def amount_json(ucr: int) -> str:
    """The amount as JSON has it: µcr as a decimal string. Raises MalformedError."""
    return str(check_amount(ucr))


def parse_amount(text: str) -> int:
    """µcr of an `amount_json`. Raises MalformedError for any other form."""
    if not isinstance(text, str) or not AMOUNT.fullmatch(text):
        raise MalformedError(f"{str(text)[:32]!r} is not an amount; write µcr as a string of decimal digits")
    return check_amount(int(text))


def format_credits(ucr: int) -> str:
    """Credits for people, exact: 1500000 µcr are '1.5'."""
    whole, rest = divmod(check_amount(ucr), UCR_PER_CREDIT)
    return f"{whole}.{rest:06}".rstrip("0").rstrip(".")


def parse_credits(text: str) -> int:
    """µcr of an amount of credits with at most six decimals. Raises MalformedError."""
    match = CREDITS.fullmatch(text)
    if match is None:
        raise MalformedError(f"{text[:32]!r} is not an amount of credits; write for example 12 or 0.000001")
    return check_amount(int(match[1]) * UCR_PER_CREDIT + int((match[2] or "").ljust(6, "0")))


def charge_ucr(units: int, weight: int, price: int) -> int:
    """What `units` cost in all, at `price` µcr for 10^6 units: rounded down here and nowhere else.

    Raises MalformedError over 2^53 − 1 µcr.
    """
    return check_amount(units * weight * price // MILLION)


def settle(units_before: int, units: int, weight: int, price: int, fee_ppm: int) -> Settlement:
    """What moves when a line's running total of units rises: differences of running totals, so no cut loses anything.

    The node's share of a total is rounded down, and the fee is the rest.

    Raises MalformedError when the total falls.
    """
    if units < units_before:
        raise MalformedError(f"units fall from {units_before} to {units}; they only rise")
    rate, share_ppm = weight * price, MILLION - fee_ppm
    before, total = units_before * rate // MILLION, units * rate // MILLION
    if total > MAX_UCR:
        check_amount(total)
    paid = total * share_ppm // MILLION - before * share_ppm // MILLION
    return Settlement(paid, total - before - paid)
