"""The policy: every number of the economy, as one fixed struct that holds and batches name by its SHA-256.

    magic 8 "NECPLCY1" | the fields below in their order

Ratios end in `_ppm` and are millionths; prices are µcr for 10^6 units, so 1,000,000 is a micro-credit a unit; times are
ms. It is published by a command that the policy key signs (`PublishPolicy`); the first one stands in the genesis.
"""

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Annotated, ClassVar

from nectar_protocol.announcement import Profile
from nectar_protocol.errors import MalformedError
from nectar_protocol.money import MILLION
from nectar_protocol.record import U32, Count, Record, Uint

Share = Annotated[int, Uint(4, MILLION)]
Positive = Annotated[int, Uint(4, 2**32 - 1, least=1)]


class Swarm(IntEnum):
    """Whose receipts for free work emission believes: everybody's, or none (then it funds auditors)."""

    TRUSTED = 1
    OPEN = 2


@dataclass(frozen=True)
class Policy(Record):
    """One version of the economy."""

    MAGIC: ClassVar[bytes] = b"NECPLCY1"

    version: Positive
    swarm: Annotated[Swarm, Uint(1, max(Swarm), min(Swarm), Swarm)]
    # What a unit is, and what it costs.
    price: Count
    fee_ppm: Share
    prefill_ppm: U32
    decode_ppm: U32
    backward_ppm: U32
    opening_ppm: U32
    f32_ppm: U32
    bf16_ppm: U32
    fp16_ppm: U32
    int8_ppm: U32
    nf4_ppm: U32
    # Holds and purses.
    hold_life_ms: Count
    grace_ms: Count
    hold_least_ucr: Count
    purse_step_ucr: Annotated[int, Uint(8, 2**53 - 1, least=1)]
    # The free class.
    free_share_ppm: Share
    free_cap_units: Count
    # How credits come to be.
    epoch_ms: Annotated[int, Uint(8, 2**53 - 1, least=1)]
    emission_ucr: Count
    emission_price: Count
    grants_ucr: Count
    # Batches, probes and verdicts.
    batch_ms: Count
    batch_units: Count
    probes_ppm: U32
    audit_ratio_ppm: U32
    audit_floor_ppm: U32
    audit_tokens: Positive
    history_ms: Count
    evidence_ms: Count

    def check(self) -> None:
        if self.swarm is Swarm.OPEN and not self.probes_ppm:
            raise MalformedError("an open swarm has probes: probes_ppm is the mean number of probes of a batch")

    @cached_property
    def id(self) -> bytes:
        """SHA-256 of the struct: the policy's name in holds."""
        return hashlib.sha256(self.pack()).digest()

    def profile_ppm(self, profile: Profile) -> int:
        """What work in this profile is worth, beside the same work in f32."""
        ppm: int = getattr(self, f"{profile.name.lower()}_ppm")
        return ppm


# What a new ledger may begin with, for friends or a company; an open swarm has swarm=OPEN and probes_ppm=3_000_000.
EXAMPLE = Policy(
    version=1,
    swarm=Swarm.TRUSTED,
    price=1_000_000,
    fee_ppm=20_000,
    prefill_ppm=1_000_000,
    decode_ppm=4_000_000,
    backward_ppm=2_000_000,
    opening_ppm=20_000,
    f32_ppm=1_000_000,
    bf16_ppm=1_000_000,
    fp16_ppm=1_000_000,
    int8_ppm=900_000,
    nf4_ppm=600_000,
    hold_life_ms=900_000,
    grace_ms=3_600_000,
    hold_least_ucr=10_000,
    purse_step_ucr=1_000_000,
    free_share_ppm=100_000,
    free_cap_units=10_000_000,
    epoch_ms=3_600_000,
    emission_ucr=1_000_000_000,
    emission_price=1_000_000,
    grants_ucr=100_000_000,
    batch_ms=3_600_000,
    batch_units=1_000_000_000,
    probes_ppm=0,
    audit_ratio_ppm=1_500_000,
    audit_floor_ppm=100,
    audit_tokens=32,
    history_ms=120_000,
    evidence_ms=2_592_000_000,
)
