"""Train the demo model from scratch on the corpus, and write its checkpoint and its loss history.

Run from the root of the repository: python -m demo.training.train --help
The same machine, number of steps, threads and seed give the same weights.
"""

import argparse
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .corpus import Corpus, build_corpus
from .data import Split, batches, split_texts, tokenize_split
from .tokenizer import save_tokenizer, train_tokenizer

DEMO = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Settings:
    """Everything that decides the weights."""

    steps: int
    seed: int
    threads: int
    vocab_size: int = 3072
    hidden_size: int = 192
    intermediate_size: int = 432
    layers: int = 8
    heads: int = 4
    kv_heads: int = 2
    length: int = 256
    batch: int = 6
    learning_rate: float = 3e-3
    warmup: int = 100
    weight_decay: float = 0.1
    dropout: float = 0.1
    bf16_autocast: bool = True


@dataclass(frozen=True)
class Point:
    """One line of the loss history."""

    step: int
    tokens: int
    train_loss: float
    held_out_loss: float
    seconds: float


def build_model(settings: Settings, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Make an untrained Llama of the chosen size."""
    config = LlamaConfig(
        vocab_size=settings.vocab_size,
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.kv_heads,
        head_dim=settings.hidden_size // settings.heads,
        max_position_embeddings=2 * settings.length,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    # At this size plain attention is faster on a processor than the fused kernel.
    model.set_attn_implementation("eager")
    return model


def add_dropout(model: LlamaForCausalLM, chance: float) -> None:
    """Drop part of every block's attention and MLP output while training; Llama itself has no such option."""

    def drop(module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        return functional.dropout(output, chance, training=module.training)

    for layer in model.model.layers:
        layer.self_attn.o_proj.register_forward_hook(drop)
        layer.mlp.register_forward_hook(drop)


def build_optimizer(model: nn.Module, settings: Settings) -> torch.optim.AdamW:
    """Make AdamW with weight decay on the matrices only."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.95), fused=True)


def rate_at(step: int, settings: Settings) -> float:
    """Return the learning rate of a step: a linear warmup, then a cosine down to zero."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def loss_of(model: LlamaForCausalLM, rows: torch.Tensor, autocast: bool) -> torch.Tensor:
    """Return the mean next-token loss over rows."""
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        logits = model(input_ids=rows[:, :-1], use_cache=False).logits
    return functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, rows: torch.Tensor, settings: Settings) -> float:
    """Return the mean loss over the held-out rows."""
    model.eval()
    parts = torch.split(rows, settings.batch)
    total = sum(loss_of(model, part, settings.bf16_autocast).item() * len(part) for part in parts)
    model.train()
    return total / len(rows)


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, split: Split, settings: Settings) -> list[Point]:
    """Run the training loop and return its history."""
    optimizer = build_optimizer(model, settings)
    stream = batches(split, tokenizer, settings.length, settings.batch, settings.seed)
    history: list[Point] = []
    recent: list[float] = []
    report = max(1, settings.steps // 30)
    start = time.monotonic()
    model.train()
    for step in range(settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, settings)
        loss = loss_of(model, next(stream), settings.bf16_autocast)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        recent.append(loss.item())
        if (step + 1) % report == 0 or step + 1 == settings.steps:
            held_out = held_out_loss(model, split.held_out, settings)
            tokens = (step + 1) * settings.batch * settings.length
            seconds = round(time.monotonic() - start, 1)
            point = Point(step + 1, tokens, round(sum(recent) / len(recent), 4), round(held_out, 4), seconds)
            history.append(point)
            recent.clear()
            print(json.dumps(asdict(point)), flush=True)
    return history


def save_model(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the checkpoint as bfloat16 shards, with the tokenizer and the decoding defaults."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.safetensors*"):
        old.unlink()
    model.to(torch.bfloat16)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
        repetition_penalty=1.1,
        max_new_tokens=64,
    )
    model.save_pretrained(str(folder), max_shard_size="1MB")
    save_tokenizer(tokenizer, folder)
    for file in folder.iterdir():
        file.chmod(0o644)


def write_history(path: Path, settings: Settings, corpus: Corpus, parameters: int, history: list[Point]) -> None:
    """Write the settings and the loss history as JSON."""
    record = {
        "settings": asdict(settings),
        "corpus_sha256": corpus.digest(),
        "parameters": parameters,
        "history": [asdict(point) for point in history],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def measured_steps(minutes: float, tokenizer: PreTrainedTokenizerFast, split: Split, settings: Settings) -> int:
    """Time a few steps on a throw-away model and return how many fit into the minutes."""
    model = build_model(settings, tokenizer)
    stream = batches(split, tokenizer, settings.length, settings.batch, settings.seed)
    times = []
    for _ in range(8):
        start = time.monotonic()
        torch.autograd.backward(loss_of(model, next(stream), settings.bf16_autocast))
        times.append(time.monotonic() - start)
    # The optimizer's step and the held-out checks take about a tenth on top.
    return max(1, int(minutes * 60 / (1.1 * sorted(times)[len(times) // 2])))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train Nectar's demo model.")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, default=0, help="optimizer steps; reproducible")
    length.add_argument("--minutes", type=float, default=30.0, help="rough time instead of steps")
    parser.add_argument("--out", type=Path, default=DEMO / "nectar_demo" / "model", help="model folder")
    parser.add_argument("--history", type=Path, default=DEMO / "training" / "loss.json", help="loss history")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    return parser.parse_args()


def main() -> None:
    """Build the text, train the tokenizer and the model, and write both."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    settings = Settings(arguments.steps or 1, arguments.seed, arguments.threads)
    corpus = build_corpus()
    train_documents, _, talks = split_texts(corpus)
    texts = [*train_documents, *(turn.text for talk in talks for turn in talk)]
    tokenizer = train_tokenizer(texts, settings.vocab_size, 2 * settings.length)
    split = tokenize_split(corpus, tokenizer, settings.length)
    if not arguments.steps:
        steps = measured_steps(arguments.minutes, tokenizer, split, settings)
        settings = Settings(steps, arguments.seed, arguments.threads)
    torch.manual_seed(settings.seed)
    model = build_model(settings, tokenizer)
    parameters = sum(p.numel() for p in model.parameters())
    tokens = sum(len(p) for d in split.documents for p in d) + sum(map(len, split.dialogues))
    print(f"{parameters} parameters, {tokens} training tokens, {settings.steps} steps", flush=True)
    add_dropout(model, settings.dropout)
    history = train(model, tokenizer, split, settings)
    save_model(model, tokenizer, arguments.out)
    write_history(arguments.history, settings, corpus, parameters, history)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
