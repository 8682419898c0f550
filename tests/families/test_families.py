"""Every family is served as its row of the page says: blocks bitwise, and all modes of decoding token by token."""

import pytest
import torch

from tests.families.configs import ALL, BLOCKS, REFUSED
from tests.families.measure import beside_others, measure, trial
from tests.families.modes import prompt
from tests.families.swarm import two_nodes
from tests.families.table import PAGE, refusals, section

FAST = ("mixtral", "bloom")  # one that is packed, with experts, and one that is padded
BESIDE = ("llama", "qwen3", "mixtral", "gemma2", "gpt2", "opt", "gpt_oss", "bloom", "falcon", "mpt", "phi", "gpt_neox")
STATES = ("opt_projected", "gemma2", "gpt2", "bloom", "falcon", "mpt", "phi")
MAX_TIES = 1e-3  # of all tokens


@pytest.mark.parametrize(
    "family", [family if family in FAST else pytest.param(family, marks=pytest.mark.slow) for family in ALL]
)
def test_a_family_is_served_as_the_page_says(family: str) -> None:
    row = measure(family)
    assert row.difference == 0.0
    assert str(row) in PAGE.read_text().splitlines()


@pytest.mark.parametrize("family", ["opt", *(pytest.param(name, marks=pytest.mark.slow) for name in STATES)])
def test_hidden_states_of_each_block_are_the_whole_models(family: str) -> None:
    with trial(family) as (folder, whole), two_nodes(folder, folder.parent, BLOCKS) as remote, torch.no_grad():
        here, there = (model(prompt(2), output_hidden_states=True).hidden_states for model in (whole, remote))
    assert len(here) == BLOCKS + 1
    assert all(map(torch.equal, here, there))


@pytest.mark.slow
def test_beside_other_sessions_tokens_are_the_whole_models_but_for_ties() -> None:
    counts = [beside_others(family) for family in BESIDE]
    tokens, ties = (sum(column) for column in zip(*counts, strict=True))
    print(f"{ties} ties among {tokens} tokens of {len(BESIDE)} families")
    assert ties <= MAX_TIES * tokens


def test_the_page_has_a_row_for_every_family_and_no_wrong_one() -> None:
    page = PAGE.read_text()
    rows = page[slice(*section(page, "served"))].splitlines()[2:]
    assert len(rows) == len(ALL)
    assert {row.split("`")[1] for row in rows} == {make().model_type for make in ALL.values()}


def test_the_page_says_of_refused_families_what_their_users_are_told() -> None:
    page, told = PAGE.read_text(), refusals()
    assert len(told) == len(REFUSED)
    assert page[slice(*section(page, "refused"))].splitlines()[2:] == told
