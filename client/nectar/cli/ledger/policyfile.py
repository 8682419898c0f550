"""A policy as TOML, for people: every number with its unit and what it is for. Its version is counted by itself."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nectar.cli.settings import read_config

if TYPE_CHECKING:
    from nectar_protocol.policy import Policy

# What stands above the first of some fields, and beside each.
SECTIONS = {
    "swarm": "Whose receipts for free work emission believes.",
    "price": "What a unit is, and what it costs. A unit is 10^6 reference FLOPs.",
    "hold_life_ms": "Holds and purses.",
    "free_share_ppm": "The free class.",
    "epoch_ms": "How credits come to be.",
    "batch_ms": "Batches, probes and verdicts.",
}
NOTES = {
    "swarm": "trusted: everybody's; open: nobody's, and emission funds auditors",
    "price": "µcr for 10^6 units",
    "fee_ppm": "millionths of a payment, burned",
    "prefill_ppm": "millionths: a prefilled token beside the reference",
    "decode_ppm": "millionths: a decoded token",
    "backward_ppm": "millionths: a token of a backward pass",
    "opening_ppm": "millionths of a decoded token, for each position reserved",
    "f32_ppm": "millionths: work in this profile beside the same in f32",
    "bf16_ppm": "millionths",
    "fp16_ppm": "millionths",
    "int8_ppm": "millionths",
    "nf4_ppm": "millionths",
    "hold_life_ms": "ms; a hold expires at most so much later",
    "grace_ms": "ms; so long after its expiry a hold settles",
    "hold_least_ucr": "µcr; what a paid hold sets aside at least",
    "purse_step_ucr": "µcr; purses move multiples of it",
    "free_share_ppm": "millionths of a node's capacity, when others wait",
    "free_cap_units": "units; the largest cap of a free line",
    "epoch_ms": "ms",
    "emission_ucr": "µcr; what an epoch emits at most",
    "emission_price": "µcr for 10^6 free units, at most",
    "grants_ucr": "µcr; what an operator may grant in an epoch",
    "batch_ms": "ms; how long a batch waits at least",
    "batch_units": "units; how large a batch is at least",
    "probes_ppm": "millionths; the mean number of probes of a batch, 0 for none",
    "audit_ratio_ppm": "millionths of an auditor's own error",
    "audit_floor_ppm": "millionths; the least error that counts",
    "audit_tokens": "tokens; how many an audit takes at least",
    "history_ms": "ms; how long nodes keep a session's history",
    "evidence_ms": "ms; how long evidence is kept",
}


def to_toml(policy: "Policy") -> str:
    """Every field but the version, with its unit."""
    lines = []
    for name, note in NOTES.items():
        if name in SECTIONS:
            lines += ["", f"# {SECTIONS[name]}"]
        value = getattr(policy, name)
        shown = f'"{value.name.lower()}"' if name == "swarm" else f"{value:_}"
        lines.append(f"{name} = {shown}  # {note}")
    return "\n".join(lines).lstrip() + "\n"


def read_policy(path: Path, version: int) -> "Policy":
    """The policy that a file says, as that version. Raises click.UsageError with what is wrong in it."""
    from nectar_protocol.errors import ProtocolError
    from nectar_protocol.policy import Policy, Swarm

    values = read_config(path)
    if unknown := sorted(values.keys() - NOTES.keys()):
        raise click.UsageError(f"{path}: a policy has no {unknown[0]!r}")
    if missing := [name for name in NOTES if name not in values]:
        raise click.UsageError(f"{path} lacks {missing[0]}; see nectar ledger policy template")
    if values["swarm"] not in ("trusted", "open"):
        raise click.UsageError(f'{path}: swarm is "trusted" or "open"')
    swarm = Swarm[values.pop("swarm").upper()]
    if wrong := [name for name, value in values.items() if type(value) is not int]:
        raise click.UsageError(f"{path}: {wrong[0]} is a whole number")
    try:
        return Policy(version=version, swarm=swarm, **values)
    except ProtocolError as error:
        raise click.UsageError(f"{path}: {error}") from error


def to_json(policy: "Policy") -> dict[str, Any]:
    """Amounts as decimal strings of µcr."""
    fields = {name: getattr(policy, name) for name in NOTES}
    shown = {name: str(value) if name.endswith("_ucr") else value for name, value in fields.items()}
    return {"id": policy.id.hex(), "version": policy.version, **shown, "swarm": policy.swarm.name.lower()}


def differences(old: "Policy", new: "Policy") -> list[str]:
    """`name old → new` of each field that is another, but for the version."""
    changed = [name for name in NOTES if getattr(old, name) != getattr(new, name)]
    return [f"{name} {_shown(getattr(old, name))} → {_shown(getattr(new, name))}" for name in changed]


def example(swarm: str) -> "Policy":
    """What a new ledger may begin with: `trusted` or `open`."""
    from nectar_protocol.policy import EXAMPLE, Swarm

    return EXAMPLE if swarm == "trusted" else replace(EXAMPLE, swarm=Swarm.OPEN, probes_ppm=3_000_000)


def _shown(value: int) -> str:
    from nectar_protocol.policy import Swarm

    return value.name.lower() if isinstance(value, Swarm) else f"{value:_}"
