"""`nectar wallet export`, `nectar wallet import`"""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nectar.cli import options
from nectar.cli.output import emit, say
from nectar.cli.wallet import place

if TYPE_CHECKING:
    from nectar_protocol.identity import Identity

MAX_BYTES = 4096


@click.command(short_help="Copy the wallet's key, for a backup or another machine.")
@click.argument("target", required=False, metavar="[FILE]", type=click.Path(path_type=Path, dir_okay=False))
@place.file
@options.json_output
def export(target: Path | None, wallet: Path | None, as_json: bool) -> None:
    """Write the wallet's key into FILE, which must not exist; without FILE print it as a line of text.

    Whoever has the copy has the credits.
    """
    from nectar_swarm.keyfile import create_key, load_key

    path = place.wallet_file(wallet)
    identity = load_key(path)
    if target is not None:
        create_key(target, identity)
    if as_json:
        told = {"key": identity.to_key_file().hex()} if target is None else {"file": str(target)}
        emit(account=identity.public.hex(), **told)
    elif target is None:
        click.echo(identity.to_key_file().hex())
        say("Keep this line secret: it is the wallet.")
    else:
        click.echo(f"{target}: the key of account {identity.public.hex()}")


@click.command("import", short_help="Use a wallet's key from elsewhere.")
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option("--force", is_flag=True, help="Take the place of another wallet's key, which is kept beside it.")
@place.file
@options.json_output
def import_(source: Path, force: bool, wallet: Path | None, as_json: bool) -> None:
    """Make the key in FILE this wallet's: a key file, or the line that `nectar wallet export` prints; - reads it from
    standard input.
    """
    from nectar_swarm.keyfile import create_key, load_key

    from nectar.errors import RequestError

    path, identity = place.wallet_file(wallet), read_key(source)
    kept = None
    if path.exists():
        before = load_key(path)
        if before.public != identity.public:
            if not force:
                raise RequestError(
                    f"{path} is the key of another account, {before.public.hex()}: export it first, or use --force, "
                    "which keeps it beside the new one"
                )
            kept = path.with_name(f"{path.name}.{before.public.hex()[:16]}")
            path.rename(kept)
    if not path.exists():
        create_key(path, identity)
    if as_json:
        emit(account=identity.public.hex(), file=str(path), kept=None if kept is None else str(kept))
    else:
        click.echo(f"{path}: the key of account {identity.public.hex()}")
        if kept is not None:
            say(f"the key that was there is in {kept}")


def read_key(source: Path) -> "Identity":
    """Of a key file, or of a line of hex digits. Raises KeyFileError."""
    from nectar_protocol.errors import IdentityError
    from nectar_protocol.identity import Identity
    from nectar_swarm.errors import KeyFileError

    try:
        if str(source) == "-":
            data = sys.stdin.buffer.read(MAX_BYTES)
        else:
            with source.open("rb") as file:
                data = file.read(MAX_BYTES)
    except OSError as error:
        raise KeyFileError(f"cannot read {source}: {error.strerror}") from error
    with contextlib.suppress(ValueError):  # else it is a key file
        data = bytes.fromhex(data.decode("ascii").strip())
    try:
        return Identity.from_key_file(data)
    except IdentityError as error:
        raise KeyFileError(f"{source} holds no wallet's key: {error}") from error
