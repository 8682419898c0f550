"""How long a text may be before its rotary frequencies change, as configurations say it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import transformers
from nectar_swarm.rope import rope_types, short_length, use_default_frequencies

from tests.families.configs import CONFIGS, MORE


@pytest.mark.parametrize(
    ("make", "types", "length"),
    [
        (CONFIGS["llama"], {"default"}, None),
        (CONFIGS["gpt2"], set(), None),
        (CONFIGS["phi3_longrope"], {"longrope"}, 16),
        (MORE["llama_dynamic"], {"dynamic"}, 256),
        (MORE["gemma3_text"], {"default"}, None),
        (lambda: transformers.Gemma3Config(), {"default"}, None),
    ],
)
def test_a_texts_length_matters_where_the_configuration_says_so(
    make: Callable[[], Any], types: set[str], length: int | None
) -> None:
    assert rope_types(make()) == types
    assert short_length(make()) == length


def test_a_configuration_that_is_only_looked_at_has_one_set_of_frequencies() -> None:
    config = copy.deepcopy(CONFIGS["phi3_longrope"]())
    use_default_frequencies(config)
    assert rope_types(config) == {"default"}
    assert short_length(config) is None
