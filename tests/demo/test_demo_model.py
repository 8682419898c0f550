"""The demo model that ships with the repository: small, loadable, and able to continue text in English."""

import importlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "demo" / "nectar_demo" / "model"
NEW_TOKENS = 40


def training(name: str) -> Any:
    """Import one of the training scripts, which live outside the installed packages."""
    if str(ROOT) not in sys.path:
        sys.path.append(str(ROOT))
    return importlib.import_module(f"demo.training.{name}")


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def corpus_text(corpus: Any) -> str:
    return "\n".join(corpus.texts())


@pytest.fixture(scope="module")
def corpus() -> Any:
    return training("corpus").build_corpus()


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    return list(training("sample").PROMPTS)


@pytest.fixture(scope="module")
def continuations(prompts: list[str]) -> Iterator[list[str]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # More threads only slow a model of this size down.
    yield list(training("sample").continue_text(prompts, MODEL, NEW_TOKENS))
    torch.set_num_threads(threads)


def test_model_folder_is_under_eight_megabytes() -> None:
    assert sum(file.stat().st_size for file in MODEL.iterdir()) < 8_000_000


def test_weights_are_bfloat16_in_several_shards() -> None:
    index = json.loads((MODEL / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert len(set(index["weight_map"].values())) > 1
    config = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == "bfloat16"
    assert config["num_hidden_layers"] == 8


def test_loads_with_tied_embeddings() -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert not model.generation_config.do_sample


def test_tokenizer_gives_back_any_text() -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    text = "Naïve café: 3 × 4 = 12,\n\tand so on 🐝."
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.slow  # it reads all of the standard library
def test_prompts_are_not_training_text(corpus: Any, prompts: list[str]) -> None:
    text = corpus_text(corpus).lower()
    assert len(prompts) == 10
    assert [prompt for prompt in prompts if prompt.lower() in text] == []


@pytest.mark.slow
def test_continuations_are_made_of_known_words(corpus: Any, continuations: list[str]) -> None:
    counts = Counter(words_of(corpus_text(corpus)))
    for text in continuations:
        words = words_of(text)
        known = sum(1 for word in words if counts[word] >= 3)
        assert len(words) >= 4, text
        assert known >= 0.85 * len(words), text


def test_continuations_do_not_loop(continuations: list[str]) -> None:
    for text in continuations:
        words = words_of(text)
        grams = Counter(zip(*(words[start:] for start in range(4)), strict=False))
        assert max(grams.values(), default=0) <= 2, text


def test_continuations_differ(continuations: list[str]) -> None:
    assert len(set(continuations)) == len(continuations)


def test_chat_template_renders_a_conversation() -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi!"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "What is a list?"},
    ]
    closed = tokenizer.apply_chat_template(talk, tokenize=False)
    assert closed == (
        "<|begin|><|system|>Be brief.<|end|><|user|>Hi!<|end|><|assistant|>Hello.<|end|><|user|>What is a list?<|end|>"
    )
    assert tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True) == f"{closed}<|assistant|>"
    markers = tokenizer.convert_tokens_to_ids(["<|system|>", "<|user|>", "<|assistant|>"])
    assert set(markers) <= set(tokenizer(closed, add_special_tokens=False)["input_ids"])


def test_answers_a_greeting_in_words() -> None:
    (text,) = training("sample").answer(["Hello!"], MODEL, NEW_TOKENS)
    assert len(words_of(text)) >= 3


@pytest.mark.slow
def test_corpus_is_the_same_every_time(corpus: Any) -> None:
    assert training("corpus").build_corpus().digest() == corpus.digest()
