"""Settlements: what receipts that counted have moved."""

from pydantic import BaseModel

from nectar_ledger.api.fields import Amount, Digest


class SettlementView(BaseModel):
    """`units` are those that the receipt added to its line; it stands in entry `index`."""

    index: int
    time_ms: int
    hold: Digest
    node: Digest
    batch: int
    units: int
    paid_ucr: Amount
    fee_ucr: Amount
