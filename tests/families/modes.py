"""Every mode of decoding that Transformers has, as what a model generates in it."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import BPE
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerFast,
    StoppingCriteria,
    StoppingCriteriaList,
    set_seed,
)
from transformers.generation.streamers import BaseStreamer

from tests.families.configs import VOCAB

PROMPT, NEW = 12, 16


class Generate:
    """A model's own generate(), for so many new tokens."""

    def __init__(self, model: Any, use_cache: bool = True) -> None:
        self.model, self.use_cache = model, use_cache

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        set_seed(1)
        if not self.use_cache:
            kwargs.pop("prefill_chunk_size", None)  # which asks for a cache
        return self.model.generate(*args, **{"max_new_tokens": NEW, "use_cache": self.use_cache} | kwargs)


Mode = Callable[[Generate, Any], torch.Tensor]  # given also the whole model, to make a draft of


def prompt(rows: int = 1, seed: int = 0, length: int = PROMPT) -> torch.Tensor:
    return torch.randint(2, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


class _EvenTokens(LogitsProcessor):
    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        scores[:, 1::2] = -torch.inf
        return scores


class _SixTokens(StoppingCriteria):
    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), input_ids.shape[1] >= PROMPT + 6)


class _Collector(BaseStreamer):
    def __init__(self) -> None:
        self.seen: list[int] = []

    def put(self, value: torch.Tensor) -> None:
        self.seen += value.flatten().tolist()

    def end(self) -> None:
        self.seen.append(-1)


def _padded(rows: int = 3) -> dict[str, torch.Tensor]:
    ids = prompt(rows, 3)
    mask = torch.ones_like(ids)
    for row, pad in enumerate((5, 0, 2)[:rows]):
        mask[row, :pad] = ids[row, :pad] = 0
    return {"input_ids": ids, "attention_mask": mask}


def _with(**options: Any) -> Mode:
    return lambda generate, whole: generate(prompt(), **options)


def _streamer(generate: Generate, whole: Any) -> torch.Tensor:
    collector = _Collector()
    generate(prompt(), do_sample=False, streamer=collector)
    return torch.tensor([collector.seen])


def _end_token(generate: Generate, whole: Any) -> torch.Tensor:
    plain = generate(prompt(), do_sample=False)
    return generate(prompt(), do_sample=False, eos_token_id=int(plain[0, PROMPT + 5]), pad_token_id=0)


def _stop_string(generate: Generate, whole: Any) -> torch.Tensor:
    letters = {chr(33 + number if number < 94 else 162 + number): number for number in range(VOCAB)}
    words = Tokenizer(BPE(letters, merges=[]))
    words.decoder = Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, clean_up_tokenization_spaces=False)
    plain = generate(prompt(), do_sample=False)
    word = tokenizer.decode(plain[0, PROMPT + 4 : PROMPT + 6])
    return generate(prompt(), do_sample=False, stop_strings=word, tokenizer=tokenizer)


def _assistant(generate: Generate, whole: Any) -> torch.Tensor:
    draft = copy.deepcopy(whole)
    noise = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for weight in draft.parameters():
            weight.add_(torch.randn(weight.shape, generator=noise) * 0.003)
    return generate(prompt(), do_sample=False, assistant_model=draft)


def _batch(**options: Any) -> Mode:
    return lambda generate, whole: generate(**_padded(), **options)


SAMPLE: dict[str, Any] = {"do_sample": True, "temperature": 0.8, "top_p": 0.9}
DRAFTS: dict[str, Mode] = {
    "prompt lookup": _with(do_sample=False, prompt_lookup_num_tokens=3),
    "assistant model": _assistant,
}
MODES: dict[str, Mode] = {
    "greedy": _with(do_sample=False),
    "sampling": _with(**SAMPLE),
    "top-k, min-p and typical sampling": _with(do_sample=True, top_k=20, min_p=0.01, typical_p=0.95),
    "beams": _with(do_sample=False, num_beams=3),
    "several beams": _with(do_sample=False, num_beams=3, num_return_sequences=2, length_penalty=0.5),
    "sampled beams": _with(do_sample=True, num_beams=3),
    "several sequences": _with(**SAMPLE, num_return_sequences=3),
    "left-padded batch": _batch(do_sample=False),
    "left-padded batch, sampled": _batch(**SAMPLE),
    "left-padded batch, beams": _batch(do_sample=False, num_beams=2),
    "penalties": _with(do_sample=False, repetition_penalty=1.3, no_repeat_ngram_size=2),
    "logits processor": _with(do_sample=False, logits_processor=LogitsProcessorList([_EvenTokens()])),
    "stopping criterion": _with(do_sample=False, stopping_criteria=StoppingCriteriaList([_SixTokens()])),
    "stop string": _stop_string,
    "end token": _end_token,
    "streamer": _streamer,
    "prefill in chunks": _with(do_sample=False, prefill_chunk_size=5),
    **DRAFTS,
}


def run(mode: str, model: Any, whole: Any, use_cache: bool = True) -> torch.Tensor:
    """What a model, whole or remote, generates in a mode."""
    return MODES[mode](Generate(model, use_cache), whole)
