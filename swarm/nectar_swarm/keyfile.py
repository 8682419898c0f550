"""The file that holds a machine's private key: libp2p's format, mode 0600, made on first use, never overwritten."""

import fcntl
import os
import stat
from pathlib import Path
from typing import BinaryIO

from nectar_protocol.errors import IdentityError
from nectar_protocol.identity import KEY_FILE_SIZE, Identity

from nectar_swarm.errors import KeyFileError


def load_key(path: Path) -> Identity:
    """Read a key file. Raises KeyFileError with what to do."""
    try:
        mode = path.stat().st_mode
        with path.open("rb") as file:
            data = file.read(KEY_FILE_SIZE + 1)
    except FileNotFoundError as error:
        raise KeyFileError(f"there is no key file at {path}; make one with: nectar key --file {path}") from error
    except OSError as error:
        raise KeyFileError(f"cannot read the key file {path}: {error.strerror}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise KeyFileError(f"other users can read the key file {path}; protect it with: chmod 600 {path}")
    try:
        return Identity.from_key_file(data)
    except IdentityError as error:
        raise KeyFileError(f"{path}: {error}; move it away to have a new key made") from error


def create_key(path: Path, identity: Identity | None = None) -> Identity:
    """Write a new key file. Raises KeyFileError if the file exists or cannot be written."""
    identity = identity or Identity.generate()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        if os.path.lexists(path):
            raise KeyFileError(f"{path} exists and is never overwritten; move it away first") from error
        raise KeyFileError(f"cannot write the key file {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(identity.to_key_file())
        file.flush()
        os.fsync(file.fileno())
    return identity


def load_or_create_key(path: Path) -> Identity:
    """The key in the file, which is made if there is none. Raises KeyFileError."""
    return load_key(path) if path.exists() else create_key(path)


def hold_key(path: Path) -> BinaryIO:
    """Keep other processes of this machine from using the key while the returned file is open. Raises KeyFileError."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise KeyFileError(f"cannot read the key file {path}: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise KeyFileError(f"another process runs with the key {path}; give this one its own with --key") from error
    return file
