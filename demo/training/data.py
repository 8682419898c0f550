"""Turn the corpus into token batches: a held-out split, and freshly shuffled packed rows for every epoch."""

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast

from .corpus import Corpus
from .dialogues import Turn
from .prose import split_sentences
from .tokenizer import ASSISTANT, BEGIN, END, USER

HELD_OUT_PERCENT = 3
BREAK_CHANCE = 0.35


@dataclass(frozen=True)
class Split:
    """Training documents (each a list of tokenized paragraphs), tokenized dialogues, and held-out rows."""

    documents: list[list[list[int]]]
    dialogues: list[list[int]]
    held_out: torch.Tensor


def is_held_out(document: str) -> bool:
    """Choose the held-out documents by a checksum, so that the choice never moves."""
    return zlib.crc32(document.encode()) % 100 < HELD_OUT_PERCENT


def split_texts(corpus: Corpus) -> tuple[list[str], list[str], list[tuple[Turn, ...]]]:
    """Return training documents, held-out documents, and the dialogues that quote no held-out document."""
    train = [document for document in corpus.documents if not is_held_out(document)]
    held_out = [document for document in corpus.documents if is_held_out(document)]
    hidden = {sentence for document in held_out for sentence in split_sentences(document.replace("\n", " "))}
    talks = [talk for talk in corpus.dialogues if not hidden & set(split_sentences(talk[-1].text))]
    return train, held_out, talks


def _pack(pieces: list[list[int]], length: int) -> torch.Tensor:
    """Join pieces end to end and cut them into rows of one token more than the context length."""
    flat = [token for piece in pieces for token in piece]
    rows = len(flat) // (length + 1)
    return torch.tensor(flat[: rows * (length + 1)]).view(rows, length + 1)


def tokenize_split(corpus: Corpus, tokenizer: PreTrainedTokenizerFast, length: int) -> Split:
    """Tokenize the training part and pack the held-out part."""
    begin, end, user, assistant = (tokenizer.convert_tokens_to_ids(t) for t in (BEGIN, END, USER, ASSISTANT))

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    train, held_out, talks = split_texts(corpus)
    dialogues = [[begin, user, *encode(talk[0].text), end, assistant, *encode(talk[1].text), end] for talk in talks]
    documents = [[encode(paragraph) for paragraph in document.split("\n")] for document in train]
    rows = _pack([[begin, *encode(document), end] for document in held_out], length)
    return Split(documents, dialogues, rows)


def epoch_rows(split: Split, tokenizer: PreTrainedTokenizerFast, length: int, rng: random.Random) -> torch.Tensor:
    """Shuffle and pack the training part once; documents are broken at random paragraph ends."""
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    newline = list(tokenizer("\n", add_special_tokens=False)["input_ids"])
    pieces: list[list[int]] = []
    for document in split.documents:
        piece = [begin]
        for number, paragraph in enumerate(document):
            # A prompt starts right after the begin marker, so many paragraphs must be seen there too.
            if number and rng.random() < BREAK_CHANCE:
                pieces.append([*piece, end])
                piece = [begin]
            elif number:
                piece = [*piece, *newline]
            piece = [*piece, *paragraph]
        pieces.append([*piece, end])
    pieces.extend(split.dialogues)
    rng.shuffle(pieces)
    return _pack(pieces, length)


def batches(
    split: Split, tokenizer: PreTrainedTokenizerFast, length: int, batch: int, seed: int
) -> Iterator[torch.Tensor]:
    """Yield training batches for ever, reshuffling at every epoch."""
    rng = random.Random(seed)
    while True:
        rows = epoch_rows(split, tokenizer, length, rng)
        order = list(range(len(rows)))
        rng.shuffle(order)
        for start in range(0, len(order) - batch + 1, batch):
            yield rows[order[start : start + batch]]
