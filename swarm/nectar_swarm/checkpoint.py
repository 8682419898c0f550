"""A lazy view of a model's weights: only the shards that hold the tensors asked for are fetched and opened."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from nectar_swarm.errors import CheckpointError
from nectar_swarm.modelfiles import INDEX, SINGLE
from nectar_swarm.source import Source


class LazyTensor:
    """A tensor that is read when Transformers' loader indexes it, and not before."""

    def __init__(self, piece: Any, on_read: Callable[[int], None]) -> None:
        self._piece, self._on_read = piece, on_read

    def get_shape(self) -> list[int]:
        return list(self._piece.get_shape())

    def get_dtype(self) -> str:
        return str(self._piece.get_dtype())

    def __getitem__(self, index: Any) -> torch.Tensor:
        tensor: torch.Tensor = self._piece[index]
        self._on_read(tensor.nbytes)
        return tensor


class Checkpoint:
    """The tensors of a model by name. Raises CheckpointError for what is missing or damaged."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._opened: dict[str, Any] = {}
        if source.manifest.file(INDEX) is not None:
            self.weight_map = _read_index(source.path(INDEX))
        else:
            self.weight_map = dict.fromkeys(self._open(SINGLE).keys(), SINGLE)

    @property
    def opened(self) -> list[str]:
        """The shards opened so far."""
        return sorted(self._opened)

    def lazy(self, keys: Iterable[str], on_read: Callable[[int], None] = lambda count: None) -> dict[str, LazyTensor]:
        """{key: lazy tensor}; fetches and opens the keys' shards, reads none of their tensors."""
        shards = {key: self._shard(key) for key in keys}
        self.source.expect(sorted(set(shards.values()) | set(self._opened)))
        found = {}
        for key, shard in shards.items():
            try:
                found[key] = LazyTensor(self._open(shard).get_slice(key), on_read)
            except SafetensorError as error:
                raise CheckpointError(f"{self.source.name}: {shard} lacks the tensor {key}") from error
        return found

    def release(self) -> None:
        """Let go of the shards; tensors that were read stay whole, but their files may be removed to make room."""
        self._opened.clear()
        self.source.release()

    def _shard(self, key: str) -> str:
        if (shard := self.weight_map.get(key)) is None:
            raise CheckpointError(f"{self.source.name} has no tensor {key}")
        return shard

    def _open(self, shard: str) -> Any:
        if shard not in self._opened:
            path = self.source.path(shard)
            try:
                self._opened[shard] = safe_open(path, "pt")
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{path} is not a safetensors file: {error}") from error
        return self._opened[shard]


def _read_index(path: Path) -> dict[str, str]:
    weight_map = json.loads(path.read_text())["weight_map"]  # its shape was checked when the manifest was made
    return {str(key): str(shard) for key, shard in weight_map.items()}
