"""A configuration that is read plainly says the same as before, and can be copied and changed as before."""

import copy

import pytest
import torch
from nectar_swarm.plain import read_modules_plainly, read_plainly
from torch import nn
from transformers import GPT2Config, LlamaConfig, PretrainedConfig

from tests.families.configs import ALL


def values(config: PretrainedConfig) -> dict[str, object]:
    names = {*vars(config), *config.attribute_map, "_attn_implementation", "output_attentions", "use_return_dict"}
    return {name: getattr(config, name, None) for name in names}


@pytest.mark.parametrize("family", ALL)
def test_every_attribute_keeps_its_value(family: str) -> None:
    config = ALL[family]()
    before, kind = values(config), type(config)
    read_plainly(config)
    assert values(config) == before
    assert isinstance(config, kind)
    assert type(config).__getattribute__ is object.__getattribute__
    assert values(copy.deepcopy(config)) == before
    assert config.to_dict() == ALL[family]().to_dict()


def test_what_is_set_under_one_name_is_read_under_the_other() -> None:
    config = GPT2Config(n_embd=64)
    read_plainly(config)
    config.hidden_size = 32
    assert (config.n_embd, config.hidden_size) == (32, 32)
    config._attn_implementation = "eager"
    assert config._attn_implementation == "eager"
    with pytest.raises(AttributeError):
        _ = config.no_such_setting


def test_settings_of_single_layers_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    config = LlamaConfig()
    monkeypatch.setattr(LlamaConfig, "is_heterogeneous", True)
    read_plainly(config)
    assert type(config) is LlamaConfig


def test_a_modules_parts_are_attributes_of_its_own_and_stay_what_they_are() -> None:
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.BatchNorm1d(3))
    before, names = model(torch.eye(2)), list(model.state_dict())
    read_modules_plainly(model)
    assert {"weight", "running_mean"} <= vars(model[1]).keys()
    assert list(model.state_dict()) == names
    model[0].weight.data.mul_(0)
    assert not torch.equal(model(torch.eye(2)), before)
    other = nn.Parameter(torch.ones(3, 2))
    model[0].weight = other
    assert model[0].weight is other
    assert model.to(torch.float64)[0].weight.dtype is torch.float64
    assert copy.deepcopy(model)[0].weight is not other
