"""Nectar's cache folder, and whole files in it: a process that is killed leaves none half written."""

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """Where Nectar keeps what it can fetch or compute again: $NECTAR_CACHE, or nectar in the user's cache folder."""
    if folder := os.environ.get("NECTAR_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nectar"


def write_whole(path: Path, text: str) -> None:
    """Write a small file at once. A cache folder that cannot be written costs time, nothing else."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            file.write(text)
        os.replace(file.name, path)
    except OSError:
        pass
