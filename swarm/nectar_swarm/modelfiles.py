"""What a model is made of: the names of its files, and which weights are read."""

import fnmatch
import json
from collections.abc import Iterable
from pathlib import Path

from nectar_protocol.manifest import FileEntry, Manifest

from nectar_swarm.digests import file_sha256
from nectar_swarm.errors import CheckpointError

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "spiece.model", "chat_template.*",
)  # fmt: skip
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
MAX_INDEX_BYTES = 64 << 20


def tokenizer_files(names: Iterable[str]) -> list[str]:
    return [
        name for name in names if "/" not in name and any(fnmatch.fnmatch(name, pattern) for pattern in TOKENIZER_FILES)
    ]


def weight_files(index: Path | None) -> list[str]:
    """The names of a model's weight files: those in its index, or the single file's. Raises CheckpointError."""
    if index is None:
        return [SINGLE]
    try:
        if index.stat().st_size > MAX_INDEX_BYTES:
            raise CheckpointError(f"{index} is larger than {MAX_INDEX_BYTES} bytes")
        weight_map = json.loads(index.read_text())["weight_map"]
        shards = sorted({FileEntry(shard, 0, bytes(32)).name for shard in weight_map.values()})
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{index} is not an index of weight files: {error}") from error
    if not shards or not all(shard.endswith(".safetensors") for shard in shards):
        raise CheckpointError(f"{index} is not an index of weight files: it names {shards[:3]}")
    return [INDEX, *shards]


def need_safetensors(model: str, names: Iterable[str]) -> None:
    """Raises CheckpointError for a model's files that lack a configuration or safetensors weights, with a way out."""
    found = set(names)
    if CONFIG not in found:
        raise CheckpointError(f"{model} has no {CONFIG}; it is not a model's folder or repository")
    if found & {INDEX, SINGLE}:
        return
    lacks = f"{model} has no safetensors weights ({SINGLE} or {INDEX})"
    if pickled := _first(found, PICKLED):
        raise CheckpointError(
            f"{lacks}, and {pickled} is a pickle: reading one can run any code that its author put there. If you trust "
            f"it, convert it once, in Python: {_conversion(model)}; then give NEW_FOLDER as the model"
        )
    if gguf := _first(found, ("*.gguf",)):
        raise CheckpointError(
            f"{lacks}, and {gguf} is in a format that Nectar does not read. Find the model in safetensors, or convert "
            f"it once, in Python: {_conversion(model, f', gguf_file={gguf!r}')}; then give NEW_FOLDER as the model"
        )
    raise CheckpointError(lacks)


def _first(names: set[str], patterns: tuple[str, ...]) -> str | None:
    return min((name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)), default=None)


def _conversion(model: str, more: str = "") -> str:
    return (
        "from transformers import AutoModelForCausalLM as M, AutoTokenizer as T; "
        f"[part.from_pretrained({model!r}{more}).save_pretrained('NEW_FOLDER') for part in (M, T)]"
    )


def manifest_of(model: str, entries: Iterable[FileEntry]) -> Manifest:
    """Raises CheckpointError for files that no manifest can list."""
    try:
        return Manifest.of(entries)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{model} is not a model that Nectar can name: {error}") from error


def entry_of(name: str, manifest: Manifest) -> FileEntry:
    """Raises CheckpointError for a name that is no file of the model."""
    entry = manifest.file(name)
    if entry is None:
        raise CheckpointError(f"{name} is not a file of this model")
    return entry


def is_intact(path: Path, entry: FileEntry) -> bool:
    """Is there a file with the size and the digest of this entry? Raises CheckpointError if it cannot be read."""
    return path.is_file() and path.stat().st_size == entry.size and file_sha256(path) == entry.sha256


def checked(path: Path, entry: FileEntry) -> Path:
    """`path` if it holds what the manifest says. Raises CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing")
    if not is_intact(path, entry):
        raise CheckpointError(f"{path} is not the file that the model names: it is damaged or was replaced; remove it")
    return path
