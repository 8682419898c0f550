"""What a node may take is what its device has free."""

import pytest
import torch
from nectar_node.memory import free_bytes, return_freed_memory


def test_a_cpu_has_the_systems_available_memory() -> None:
    assert free_bytes(torch.device("cpu")) > 1 << 20


def test_a_gpu_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (123, 456))
    assert free_bytes(torch.device("cuda", 0)) == 123


def test_memory_settings_are_made_where_there_is_glibc_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    return_freed_memory()
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("there is no glibc to ask"))
    return_freed_memory()
