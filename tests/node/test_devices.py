"""Devices that are not to be had are refused in one line that says what is."""

import pytest
import torch
from nectar_node.devices import choose_device, choose_devices, describe
from nectar_node.errors import DeviceError

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Test GPU {device.index}")


@pytest.mark.usefixtures("no_gpu")
def test_auto_is_the_cpu_where_there_is_nothing_else() -> None:
    assert choose_device("auto") == choose_device("cpu") == CPU
    assert describe([CPU]) == "cpu"


@pytest.mark.usefixtures("two_gpus")
def test_gpus_are_counted() -> None:
    assert choose_device("auto") == choose_device("cuda") == choose_device("cuda:0") == CUDA
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert describe([torch.device("cuda", 1)]) == "Test GPU 1"
    with pytest.raises(DeviceError, match="there is no cuda:2; this machine has 2 CUDA devices"):
        choose_device("cuda:2")


def test_auto_is_the_apple_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == choose_device("mps") == torch.device("mps")


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("wanted", ["cuda", "cuda:1", "mps", "gpu", "", "xpu", "meta", "cpu:x", "cuda:-1"])
def test_what_is_not_here_is_refused_in_one_line(wanted: str) -> None:
    with pytest.raises(DeviceError) as refused:
        choose_device(wanted)
    message = str(refused.value)
    assert "\n" not in message
    assert "choose" in message


@pytest.mark.usefixtures("two_gpus")
def test_several_devices_of_a_kind_make_one_node() -> None:
    both = choose_devices("cuda:0, cuda:1")
    assert both == (CUDA, torch.device("cuda", 1))
    assert describe(both) == "Test GPU 0, Test GPU 1"
    assert choose_devices("cpu,cpu") == (CPU, CPU)
    assert describe((CPU, CPU)) == "2 × cpu"
    for wrong, reason in (("cuda:0,cpu", "different kinds"), ("cuda,cuda:0", "twice"), ("cuda:0,cuda:7", "no cuda:7")):
        with pytest.raises(DeviceError, match=reason):
            choose_devices(wrong)
