"""Vectors of policies and model entries, and of the units that follow from them."""

from dataclasses import replace

from cases import Json, flip, put, refused
from nectar_protocol.announcement import Profile
from nectar_protocol.metering import units
from nectar_protocol.modelentry import AuditState, BlockCost, ModelEntry
from nectar_protocol.receipt import Work
from nectar_protocol.reference import Attention, Experts, LinearAttention, reference_flops
from objects import ENTRY, FULL, MODEL, POLICY, WINDOWED, WORK, view

MOE = reference_flops(2_000_000_000, Attention(32, 128, 128), Experts(64, 8, 30_000_000))
MLA = reference_flops(600_000_000, Attention(128, 192, 128))
LINEAR = reference_flops(500_000_000, LinearAttention(32, 128, 128))
TINY = BlockCost(999, 7, 3)


def metering_vectors() -> Json:
    mixed = ModelEntry(MODEL, 2, AuditState.ENFORCED, (FULL, WINDOWED, LINEAR, MLA, MOE, TINY, TINY, FULL))
    entries = {"one of two kinds": ENTRY, "one of six kinds": mixed, "one tiny block": replace(ENTRY, blocks=(TINY,))}
    half = replace(POLICY, version=2, opening_ppm=0, prefill_ppm=333_333, decode_ppm=1, bf16_ppm=777_777)
    policies = {"the defaults": POLICY, "odd ratios": half}
    works = {
        "nothing": Work(),
        "opened": Work(192),
        "128 and 64 tokens": WORK,
        "one token at 0": Work(0, 1),
        "one token at 5,000": Work(0, 0, 0, 1, 5_000),
        "2,048 tokens through a window of 1,024": Work(2_048, 2_048, 2_048 * 2_047 // 2),
        "training": Work(512, 512, 130_816, 0, 0, 512, 130_816),
        "10^9 tokens": Work(10**9, 10**9, 10**12, 10**9, 10**12, 10**9, 10**12),
    }
    packed = entries["one of six kinds"].pack()
    p = POLICY.pack()
    bad_entries = {
        "empty": b"",
        "one byte short": packed[:-1],
        "one byte long": packed + b"\0",
        "one byte wrong in the magic": flip(packed, 0),
        "version 0": put(packed, 40, bytes(4)),
        "state 0": put(packed, 44, b"\0"),
        "state 3": put(packed, 44, b"\3"),
        "no block": packed[:45] + bytes(3),
        "a block with a cost that is not listed": packed[:-1] + b"\6",
        "a cost that no block has": put(packed, len(packed) - 6, b"\1"),
        "a cost listed twice": put(packed, 68, packed[48:68]),
        "costs in another order": put(packed, len(packed) - 8, b"\1\0"),
        "a window without a price": put(ENTRY.pack(), 76, bytes(8)),
    }
    bad_policies = {
        "empty": b"",
        "one byte short": p[:-1],
        "one byte long": p + b"\0",
        "one byte wrong in the magic": flip(p, 0),
        "version 0": put(p, 8, bytes(4)),
        "swarm 3": put(p, 12, b"\3"),
        "an open swarm without probes": put(p, 12, b"\2"),
        "a price of 2^53": put(p, 13, (2**53).to_bytes(8, "big")),
        "a fee of more than everything": put(p, 21, (1_000_001).to_bytes(4, "big")),
    }
    return {
        "entries": [
            {"name": name, "fields": view(entry), "packed": entry.pack().hex(), "sha256": entry.id.hex()}
            for name, entry in entries.items()
        ],
        "policies": [
            {"name": name, "fields": view(policy), "packed": policy.pack().hex(), "sha256": policy.id.hex()}
            for name, policy in policies.items()
        ],
        "units": [
            {
                "name": f"{work_name}, {entry_name}, {policy_name}, {profile.name}",
                "entry_name": entry_name,
                "policy_name": policy_name,
                "start": start,
                "stop": stop,
                "profile": int(profile),
                "work": view(work),
                "units": str(units(work, start, stop, profile, entry, policy)),
            }
            for entry_name, entry in entries.items()
            for policy_name, policy in policies.items()
            for work_name, work in works.items()
            for start, stop, profile in (
                (0, len(entry.blocks), Profile.BF16),
                (len(entry.blocks) // 2, len(entry.blocks) // 2 + 1, Profile.NF4),
            )
        ],
        "invalid_entries": refused(bad_entries, "packed"),
        "invalid_policies": refused(bad_policies, "packed"),
    }
