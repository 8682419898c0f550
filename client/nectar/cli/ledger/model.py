"""`nectar ledger model add`"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nectar.cli import options
from nectar.cli.ledger import place
from nectar.cli.ledger.counter import open_desk
from nectar.cli.output import configure_logging, emit, say

if TYPE_CHECKING:
    from nectar_protocol.modelentry import BlockCost


@click.group(short_help="The models that a ledger meters.")
def model() -> None:
    """The models that a ledger meters: what one block of each costs."""


@model.command()
@click.argument("model_name", metavar="MODEL")
@click.option("--id", "model_id", metavar="HEX", help="The model's ID, where MODEL is a config.json alone.")
@click.option("--enforced", is_flag=True, help="Let verdicts on this model burn batches; in shadow they move nothing.")
@options.revision
@place.writable
@options.json_output
@options.verbose
def add(
    model_name: str,
    model_id: str | None,
    enforced: bool,
    revision: str,
    as_json: bool,
    verbose: int,
    **where: Any,
) -> None:
    """Publish what the blocks of MODEL (a folder, a name on the hub, or a config.json) cost, as the next version.

    The costs follow from its configuration, by the reference rule; the model's ID from its files. Needs what a client
    needs: pip install 'nectar-swarm[client,ledger]'.
    """
    configure_logging(verbose)
    from nectar_protocol.commands import PublishModel
    from nectar_protocol.modelentry import AuditState, ModelEntry

    id, costs = examine_model(model_name, model_id, revision)
    state = AuditState.ENFORCED if enforced else AuditState.SHADOW
    with open_desk(**where) as desk:
        entry = ModelEntry(id, desk.counter.model_version(id) + 1, state, costs)
        if not as_json:
            tell(costs)
        index = desk.issue(PublishModel, "policy", entry=entry)
    if as_json:
        emit(index=index, model=id.hex(), version=entry.version, id=entry.id.hex(), blocks=len(costs))
    else:
        click.echo(f"model {id.hex()}, version {entry.version}, is entry {index}")


def examine_model(name: str, model_id: str | None, revision: str) -> "tuple[bytes, tuple[BlockCost, ...]]":
    """A model's ID and what its blocks cost. Raises click.UsageError, SwarmError."""
    from nectar_swarm.anatomy import load_config
    from nectar_swarm.costs import block_costs
    from nectar_swarm.source import open_source

    if Path(name).is_file():
        return parse_model_id(name, model_id), block_costs(read_config_file(name))
    if model_id is not None:
        raise click.UsageError("--id goes with a config.json; a model's folder tells its ID by itself")
    source = open_source(name, revision)
    costs = block_costs(load_config(source))
    return source.manifest.model_id, costs


def read_config_file(name: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{name} is no configuration that Transformers knows: {error}") from error


def parse_model_id(name: str, text: str | None) -> bytes:
    try:
        id = bytes.fromhex(text or "")
    except ValueError:
        id = b""
    if len(id) != 32:
        raise click.UsageError(f"{name} is a configuration alone: give its model's ID, 64 hex digits, with --id")
    return id


def tell(costs: "tuple[BlockCost, ...]") -> None:
    for cost in dict.fromkeys(costs):
        numbers = [number for number, other in enumerate(costs) if other == cost]
        window = f", at most {cost.window}" if cost.window else ""
        say(
            f"{len(numbers)} blocks from {numbers[0]} on: {cost.token_flops:,} FLOPs a token, {cost.position_flops:,} "
            f"for each position before it{window}"
        )
