"""Money: whole micro-credits, rounded down once, on running totals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nectar_protocol.errors import MalformedError
from nectar_protocol.money import (
    MAX_UCR,
    amount_json,
    charge_ucr,
    format_credits,
    parse_amount,
    parse_credits,
    settle,
)

amounts = st.integers(0, MAX_UCR)
totals = st.lists(st.integers(0, 10**12), min_size=1, max_size=20).map(sorted)
prices = st.integers(0, 10**6)
fees = st.integers(0, 10**6)
weights = st.sampled_from([0, 1, 2, 4, 8])


@given(amounts)
def test_an_amount_is_read_as_it_was_written(ucr: int) -> None:
    assert parse_amount(amount_json(ucr)) == ucr
    assert parse_credits(format_credits(ucr)) == ucr


@pytest.mark.parametrize("ucr", [-1, MAX_UCR + 1])
def test_an_amount_out_of_bounds_is_refused(ucr: int) -> None:
    for refuse in (amount_json, format_credits):
        with pytest.raises(MalformedError):
            refuse(ucr)


@pytest.mark.parametrize("text", ["", "-1", "+1", "01", "1.0", "1e3", " 1", "1\n", "١", str(2**53), "9" * 400, 1, None])
def test_an_amount_in_any_other_form_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_amount(text)


@pytest.mark.parametrize("text", ["", ".5", "1.", "01", "-1", "1.0000001", "1,5", "1e3", "9007199254.740992"])
def test_credits_in_any_other_form_are_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_credits(text)


@pytest.mark.parametrize(("ucr", "text"), [(0, "0"), (1, "0.000001"), (1_500_000, "1.5"), (10_000_000, "10")])
def test_credits_are_written_exactly(ucr: int, text: str) -> None:
    assert format_credits(ucr) == text


def test_the_worked_example_of_a_hold_with_two_receipts() -> None:
    assert charge_ucr(6_100_000, 1, 1_000_000) == 6_100_000
    assert settle(0, 4_000_000, 1, 1_000_000, 20_000) == (3_920_000, 80_000)
    assert settle(4_000_000, 5_000_000, 1, 1_000_000, 20_000) == (980_000, 20_000)


@given(totals, weights, prices, fees)
def test_however_a_total_is_cut_the_same_is_paid_and_no_part_is_negative(
    units: list[int], weight: int, price: int, fee_ppm: int
) -> None:
    parts = [settle(before, after, weight, price, fee_ppm) for before, after in zip([0, *units], units, strict=False)]
    total = charge_ucr(units[-1], weight, price)
    paid = total * (10**6 - fee_ppm) // 10**6
    assert (sum(part.paid_ucr for part in parts), sum(part.fee_ucr for part in parts)) == (paid, total - paid)
    assert all(part.paid_ucr >= 0 and part.fee_ucr >= 0 for part in parts)


@given(st.integers(0, 10**12), weights, prices)
def test_a_charge_is_less_than_a_microcredit_under_the_exact_price(units: int, weight: int, price: int) -> None:
    assert 0 <= units * weight * price - charge_ucr(units, weight, price) * 10**6 < 10**6


def test_a_total_that_falls_is_refused() -> None:
    with pytest.raises(MalformedError, match="only rise"):
        settle(2, 1, 1, 1, 0)


def test_a_charge_over_the_bound_is_refused() -> None:
    with pytest.raises(MalformedError):
        charge_ucr(MAX_UCR, 8, 1_000_000)
