"""A file that holds one of the ledger's private keys: libp2p's format, mode 0600, never overwritten."""

import os
import stat
from pathlib import Path

from nectar_protocol.errors import IdentityError
from nectar_protocol.identity import KEY_FILE_SIZE, Identity

from nectar_ledger.errors import HomeError


def load_key(path: Path) -> Identity:
    """Raises HomeError with what to do."""
    try:
        mode = path.stat().st_mode
        with path.open("rb") as file:
            data = file.read(KEY_FILE_SIZE + 1)
    except OSError as error:
        raise HomeError(f"cannot read the key file {path}: {error.strerror}; put it back from your backup") from error
    if stat.S_IMODE(mode) & 0o077:
        raise HomeError(f"other users can read the key file {path}; protect it with: chmod 600 {path}")
    try:
        return Identity.from_key_file(data)
    except IdentityError as error:
        raise HomeError(f"{path}: {error}; put it back from your backup") from error


def create_key(path: Path) -> Identity:
    """A new key in a new file, durable when this returns. Raises HomeError if the file exists or cannot be written."""
    identity = Identity.generate()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise HomeError(f"{path} exists and is never overwritten; move it away first") from error
    except OSError as error:
        raise HomeError(f"cannot write the key file {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(identity.to_key_file())
        file.flush()
        os.fsync(file.fileno())
    return identity
