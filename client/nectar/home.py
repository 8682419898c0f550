"""Where this user's keys and settings lie."""

import os
from pathlib import Path


def data_folder() -> Path:
    """Where keys live: $NECTAR_HOME, or nectar in the user's data folder."""
    if folder := os.environ.get("NECTAR_HOME"):
        return Path(folder)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "nectar"
