"""The name of the argument that holds a cache is the one by which the installed Transformers' models know it."""

import inspect

import torch
from nectar_swarm.cachename import CACHE
from transformers import DynamicCache, GenerationMixin, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaForCausalLM, LlamaModel


def test_models_and_generate_take_a_cache_by_this_name() -> None:
    for function in (LlamaModel.forward, LlamaForCausalLM.forward, GenerationMixin.prepare_inputs_for_generation):
        assert CACHE in inspect.signature(function).parameters


def test_a_model_keeps_its_past_in_a_cache_of_this_name() -> None:
    config = LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2)
    with torch.device("meta"):
        model, cache = LlamaModel(config), DynamicCache(config=config)
        model(torch.zeros(1, 3, dtype=torch.long), use_cache=True, **{CACHE: cache})
    assert cache.get_seq_length() == 3
