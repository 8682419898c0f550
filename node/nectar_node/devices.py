"""Which device computes."""

import torch

from nectar_node.errors import DeviceError


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


def describe(device: torch.device) -> str:
    """The device's name for people."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
