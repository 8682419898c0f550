"""How much memory this process has and may take."""

import ctypes
import platform

import psutil
import torch

M_MMAP_THRESHOLD = -3
BIG_ALLOCATION = 1 << 20


def return_freed_memory() -> None:
    """Have glibc give large freed blocks back to the system, instead of keeping up to hundreds of MB (mallopt(3))."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, BIG_ALLOCATION)


def free_bytes(device: torch.device) -> int:
    """Memory that a span and its KV could take on this device now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    return int(psutil.virtual_memory().available)
