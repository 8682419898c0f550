"""The command's entry: finds the subcommand, and turns every error that users can act on into one line.

Exit codes: 0 done; 1 an error in Nectar itself; 2 wrong usage or settings; 3 a key, model, device or file is not as it
must be, or a part is not installed; 4 the swarm or the ledger cannot be reached; 5 some of the blocks have no node, no
trusted one, or none with room; 130 interrupted.
"""

import os
import sys

import click
from nectar_swarm.lean import skip_unused_imports

from nectar import __version__
from nectar.cli import audit, bootstrap, demo, generate, key, node, swarm
from nectar.cli.ledger import group as ledger
from nectar.cli.output import emit, say
from nectar.cli.settings import default_map
from nectar.cli.wallet import group as wallet

FAULTY, UNREACHABLE, UNSERVED, INTERRUPTED = 3, 4, 5, 130
# The extra that a command needs, if it is not a client's.
PARTS = {"node": "node", "demo": "demo", "audit": "ledger", "ledger": "ledger"}
# What a model is examined with, whatever the command.
OF_CLIENTS = {"torch", "transformers", "safetensors", "huggingface_hub", "hivemind"}
COMMANDS = {
    "audit": audit.command,
    "bootstrap": bootstrap.command,
    "demo": demo.command,
    "generate": generate.command,
    "key": key.command,
    "ledger": ledger.command,
    "node": node.command,
    "swarm": swarm.command,
    "wallet": wallet.command,
}


@click.group(commands=COMMANDS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="nectar")
def command() -> None:
    """Run language models too big for one machine, together.

    Settings can also stand in nectar.toml or in NECTAR_… variables.
    """


def exit_code(error: BaseException) -> int | None:
    """The exit code of an error that users can act on; None for one that is Nectar's own."""
    from nectar_protocol.errors import ProtocolError

    from nectar.errors import ClientError, NoRouteError

    if isinstance(error, NoRouteError):
        return UNSERVED
    if isinstance(error, ClientError | ProtocolError):
        return FAULTY
    for module, names in (
        ("nectar_swarm.errors", {"UnreachableError": UNREACHABLE, "SwarmError": FAULTY}),
        ("nectar_node.errors", {"NodeError": FAULTY}),
        ("nectar_demo.errors", {"DemoError": FAULTY}),
        ("nectar_ledger.errors", {"LedgerError": FAULTY}),
        (
            "nectar_ledger_client.errors",
            {"UnreachableError": UNREACHABLE, "BusyError": UNREACHABLE, "LedgerClientError": FAULTY},
        ),
    ):
        if module in sys.modules:
            for name, code in names.items():
                if isinstance(error, getattr(sys.modules[module], name)):
                    return code
    return None


def run() -> None:
    """The console script."""
    if sys.platform == "win32":
        sys.exit("nectar: Windows is not supported; run Nectar inside WSL2")
    os.environ.setdefault("HIVEMIND_LOGLEVEL", "CRITICAL")
    skip_unused_imports()
    as_json = wants_json()
    code = 0
    try:
        command.main(standalone_mode=False, default_map=default_map(command))
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.message, err=True)
        code = error.exit_code
    except click.ClickException as error:
        report(error.format_message(), error.exit_code, as_json)
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        say("interrupted")
        code = INTERRUPTED
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if missing.startswith("nectar"):
            raise
        part = PARTS.get(sys.argv[1], "client")
        if part == "ledger" and missing in OF_CLIENTS:
            part = "client,ledger"
        report(
            f"{missing} is not installed; install this part with: pip install 'nectar-swarm[{part}]'", FAULTY, as_json
        )
        code = FAULTY
    except Exception as error:
        known = exit_code(error)
        if known is None:
            raise
        report(str(error), known, as_json)
        code = known
    sys.stdout.flush()
    sys.exit(code)


def wants_json() -> bool:
    """Is JSON asked for? Known before the command line is understood, since that may be what is wrong."""
    return "--json" in sys.argv or os.environ.get("NECTAR_JSON", "").lower() in ("1", "true", "t", "yes", "y", "on")


def report(message: str, code: int, as_json: bool) -> None:
    """One line about what is wrong and what to do."""
    line = " ".join(message.split())
    if as_json:
        emit(error=line, exit_code=code)
    else:
        say(f"nectar: {line}")
