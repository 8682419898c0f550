"""A key file is private from its first moment, never overwritten, and refused with what to do about it."""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nectar_protocol.identity import Identity
from nectar_swarm.errors import KeyFileError
from nectar_swarm.keyfile import create_key, hold_key, load_key, load_or_create_key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "node.key"


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_a_new_key_is_private_whatever_the_umask(path: Path) -> None:
    create_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_reads_back(path: Path) -> None:
    assert create_key(path).to_key_file() == load_key(path).to_key_file()


def test_a_key_is_made_on_first_use_and_kept(path: Path) -> None:
    first = load_or_create_key(path)
    assert load_or_create_key(path).public == first.public


def test_a_given_identity_is_written(path: Path) -> None:
    identity = Identity.generate()
    assert create_key(path, identity) is identity
    assert path.read_bytes() == identity.to_key_file()


def test_a_file_is_never_overwritten(path: Path) -> None:
    create_key(path)
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match="never overwritten; move it away"):
        create_key(path)
    assert path.read_bytes() == before


def test_a_link_to_nowhere_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFileError, match="move it away"):
        create_key(path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_missing_file_says_how_to_make_one(path: Path) -> None:
    with pytest.raises(KeyFileError, match=f"nectar key --file {path}"):
        load_key(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_a_file_that_others_may_use_is_refused_with_the_cure(path: Path, mode: int) -> None:
    create_key(path)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match=f"chmod 600 {path}"):
        load_key(path)


def corrupt(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    "damage", [corrupt, lambda data: data[:-1], lambda data: data + b"\0", lambda data: b"", lambda data: bytes(68)]
)
def test_a_damaged_file_is_refused_and_left_as_it_is(path: Path, damage: Callable[[bytes], bytes]) -> None:
    create_key(path)
    path.write_bytes(damaged := damage(path.read_bytes()))
    with pytest.raises(KeyFileError, match="move it away to have a new key made"):
        load_or_create_key(path)
    assert path.read_bytes() == damaged


def test_a_folder_in_place_of_the_file_is_refused(path: Path) -> None:
    path.mkdir(parents=True)
    for use in (load_key, load_or_create_key):
        with pytest.raises(KeyFileError, match="cannot read"):
            use(path)


def test_a_file_in_place_of_the_folder_is_refused_for_what_it_is(path: Path) -> None:
    path.parent.write_text("in the way")
    with pytest.raises(KeyFileError, match="cannot write"):
        load_or_create_key(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
def test_an_unreadable_file_is_refused(path: Path) -> None:
    create_key(path)
    path.chmod(0)
    with pytest.raises(KeyFileError, match="cannot read"):
        load_key(path)


def test_a_key_in_use_is_refused_until_it_is_let_go(path: Path) -> None:
    create_key(path)
    with hold_key(path):
        with pytest.raises(KeyFileError, match="give this one its own with --key"):
            hold_key(path)
        assert load_key(path)
    hold_key(path).close()


def test_a_key_that_is_gone_cannot_be_held(path: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot read"):
        hold_key(path)
