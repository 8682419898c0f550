"""The examples run as their help says, on a swarm of two node processes, and print what the whole model says."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nectar_demo
import pytest
import torch
from nectar_demo.processes import NodeProcess
from transformers import AutoModelForCausalLM, AutoTokenizer

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL = Path(nectar_demo.__file__).parent / "model"
PROMPT = "If the list is empty,"

Run = Callable[..., list[str]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """An example's output, line by line."""
    folder = tmp_path_factory.mktemp("nodes")
    first = NodeProcess("first", folder, MODEL, "0:4").wait()
    second = NodeProcess("second", folder, MODEL, "4:8", [first.address]).wait()

    def run(name: str, *options: str) -> list[str]:
        command = [sys.executable, EXAMPLES / name, PROMPT, "--model", MODEL, "--initial-peers", first.address]
        done = subprocess.run(
            [*command, *options], capture_output=True, text=True, timeout=120, cwd=folder, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    yield run
    for node in (first, second):
        node.stop()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def whole() -> Any:
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()


def continued(whole: Any, tokenizer: Any, text: str, tokens: int) -> str:
    ids = tokenizer(text, return_tensors="pt").input_ids
    out = whole.generate(ids, max_new_tokens=tokens, do_sample=False)
    return str(tokenizer.decode(out[0], skip_special_tokens=True))


def test_generate_goes_on_in_its_session(run: Run, whole: Any, tokenizer: Any) -> None:
    printed = "\n".join(run("generate.py", "--then", " So"))
    first = continued(whole, tokenizer, PROMPT, 32)
    assert first.removeprefix(PROMPT).strip() in printed
    assert first + " So" in printed
    assert "blocks 0:4 on 12D3KooW" in printed


def test_hidden_states_end_with_what_the_model_says(run: Run, whole: Any, tokenizer: Any) -> None:
    lines = run("hidden_states.py")
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    with torch.no_grad():
        said = repr(tokenizer.decode(whole(ids).logits[:, -1].argmax(-1)))
    assert len(lines) == 8 + 2
    assert lines[8] == f"all 8 blocks: {said}"
    assert lines[9].startswith("without 2:3: ")


def test_a_draft_changes_nothing_but_the_time(run: Run, whole: Any, tokenizer: Any, tmp_path: Path) -> None:
    draft = AutoModelForCausalLM.from_pretrained(MODEL, num_hidden_layers=5)  # its first blocks, and its head
    draft.save_pretrained(tmp_path)
    lines = run("speculate.py", "--draft", str(tmp_path))
    assert [line.partition(":")[0] for line in lines[:2]] == ["plain", "with a draft"]
    assert "\n".join(lines[2:-1]) == continued(whole, tokenizer, PROMPT, 48)
    assert lines[-1] == "the same text"
