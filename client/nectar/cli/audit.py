"""`nectar audit FILE`, `nectar audit receipt`"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nectar.cli import options
from nectar.cli.output import emit, say, stdout
from nectar.cli.settings import option

if TYPE_CHECKING:
    from nectar_ledger_client.verifier import Check, Proved

log_key = option("--log-key", metavar="VKEY", help="The key of the ledger's log, as the ledger publishes it.")
witnesses = option("--witness", "witnesses", multiple=True, metavar="VKEY", help="The key of a witness of the log.")
quorum = option(
    "--quorum", type=click.IntRange(0), default=None, help="How many witnesses must have cosigned; all by default."
)
holds_key = option("--holds-key", metavar="HEX", help="The ledger's key for holds, to check a hold's own signature.")


class FileOrCommand(click.Group):
    """A group whose arguments are those of `file`, unless the first names another command."""

    def resolve_command(
        self, context: click.Context, arguments: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if arguments and arguments[0] not in self.commands:
            return "file", verify_file, arguments
        return super().resolve_command(context, arguments)


@click.group(
    cls=FileOrCommand,
    short_help="Check offline what a ledger has recorded.",
    subcommand_metavar="[file] FILE | receipt INDEX",
    context_settings={"ignore_unknown_options": True},
)
def command() -> None:
    """Check the proof in FILE that a ledger has recorded a receipt, a hold or a command: offline, trusting nobody.

    `nectar audit receipt INDEX --save FILE` fetches such a file. See `nectar audit file --help` for the options.
    """


@click.command("file", short_help="Check the proof in a file.")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@log_key
@witnesses
@quorum
@holds_key
@options.json_output
def verify_file(
    path: Path,
    log_key: str | None,
    witnesses: tuple[str, ...],
    quorum: int | None,
    holds_key: str | None,
    as_json: bool,
) -> None:
    """Check the proof in FILE: the log's signature, the entry's place in it, who cosigned, who signed the entry."""
    from nectar_ledger_client.verifier import verify_proof_file
    from nectar_protocol.identity import PublicKey

    if log_key is None:
        raise click.UsageError("give the key of the ledger's log with --log-key VKEY: nobody is asked for it here")
    holds = None if holds_key is None else PublicKey(parse_hex(holds_key, "--holds-key"))
    required = need_quorum(quorum, witnesses)
    proved = verify_proof_file(path, log_key, witnesses, required, holds, lambda check: show(check, as_json))
    conclude(proved, as_json)


command.add_command(verify_file)


@command.command(short_help="Fetch the proof of an entry, and check it.")
@click.argument("index", type=click.IntRange(0))
@option("--ledger", "address", required=True, metavar="URL", help="The ledger's address.")
@option("--ledger-id", metavar="HEX", help="The ID that the ledger must have; else the one at URL is believed.")
@click.option("--save", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Where to put the proof.")
@witnesses
@quorum
@options.json_output
def receipt(
    index: int,
    address: str,
    ledger_id: str | None,
    save: Path,
    witnesses: tuple[str, ...],
    quorum: int | None,
    as_json: bool,
) -> None:
    """Fetch the proof of a receipt, or of any other entry, by its INDEX in the log; check it and save it."""
    from nectar_ledger_client.client import LedgerClient
    from nectar_ledger_client.verifier import verify_proof, with_entry, write_proof_file
    from nectar_protocol.note import NoteKey

    keys, required = [NoteKey.parse(witness) for witness in witnesses], need_quorum(quorum, witnesses)
    with LedgerClient(address, None if ledger_id is None else parse_hex(ledger_id, "--ledger-id")) as client:
        known = client.known()
        proof = with_entry(client.proof(index, required), client.entry(index).data)
    proved = verify_proof(proof, known.log, keys, required, known.holds, lambda check: show(check, as_json))
    write_proof_file(save, proof)
    conclude(proved, as_json)
    say(f"saved; check it anywhere with: nectar audit {save} --log-key {known.log} --holds-key {known.holds.hex()}")


def parse_hex(text: str, flag: str) -> bytes:
    """32 bytes. Raises click.UsageError."""
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise click.UsageError(f"{flag}: {text[:80]!r} is not 32 bytes; write them as 64 lower-case hex digits")
    return bytes.fromhex(text)


def need_quorum(quorum: int | None, witnesses: tuple[str, ...]) -> int:
    """How many must have cosigned. Raises click.UsageError for more than there are."""
    if quorum is not None and quorum > len(witnesses):
        raise click.UsageError(f"--quorum {quorum} among {len(witnesses)} witnesses: name more with --witness VKEY")
    return len(witnesses) if quorum is None else quorum


def show(check: "Check", as_json: bool) -> None:
    if as_json:
        emit(check=check.name, passed=check.passed, says=check.words)
    else:
        stdout.print(f"{'✓' if check.passed else '–'} {check.name}: {check.words}", markup=False, soft_wrap=True)


def conclude(proved: "Proved", as_json: bool) -> None:
    if as_json:
        emit(proved=proved.words, index=proved.index, kind=proved.entry.kind.name.lower(), size=proved.checkpoint.size,
             root=proved.checkpoint.root.hex(), witnesses=list(proved.witnesses))  # fmt: skip
    else:
        stdout.print(proved.words, markup=False, soft_wrap=True)
