"""Which devices compute."""

from collections import Counter
from collections.abc import Sequence

import torch

from nectar_node.errors import DeviceError


def choose_devices(wanted: str) -> tuple[torch.device, ...]:
    """One device of this machine, or several of a kind: `cuda:0,cuda:1`. Raises DeviceError."""
    devices = tuple(choose_device(name.strip()) for name in wanted.split(","))
    if len({device.type for device in devices}) > 1:
        raise DeviceError(f"{wanted} are of different kinds; start a node for each kind")
    if devices[0].type != "cpu" and len(set(devices)) < len(devices):
        raise DeviceError(f"{wanted} names a device twice")
    return devices


def choose_device(wanted: str) -> torch.device:
    """`auto`, `cpu`, `cuda`, `cuda:1` or `mps` as a device of this machine. Raises DeviceError."""
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise DeviceError(f"{wanted!r} is not a device; choose auto, cpu, cuda, cuda:N or mps") from error
    match device.type:
        case "cpu":
            return device
        case "cuda":
            if not torch.cuda.is_available():
                raise DeviceError("PyTorch sees no CUDA device here; choose --device cpu or install a CUDA build")
            if (device.index or 0) >= torch.cuda.device_count():
                raise DeviceError(f"there is no {wanted}; this machine has {torch.cuda.device_count()} CUDA devices")
            return torch.device("cuda", device.index or 0)
        case "mps":
            if not torch.backends.mps.is_available():
                raise DeviceError("PyTorch sees no Apple GPU here; choose --device cpu")
            return device
    raise DeviceError(f"{wanted!r} is not a device that nodes run on; choose auto, cpu, cuda, cuda:N or mps")


def describe(devices: Sequence[torch.device]) -> str:
    """The devices' names for people."""
    names = [torch.cuda.get_device_name(device) if device.type == "cuda" else device.type for device in devices]
    counts = Counter(names)
    return ", ".join(name if count == 1 else f"{count} × {name}" for name, count in counts.items())
