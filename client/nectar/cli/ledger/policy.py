"""`nectar ledger policy show|publish|template`"""

from pathlib import Path
from typing import Any

import click

from nectar.cli import options
from nectar.cli.ledger import place, policyfile
from nectar.cli.ledger.counter import open_desk
from nectar.cli.output import emit, say


@click.group(short_help="Show a ledger's policy, or publish a new version.")
def policy() -> None:
    """The numbers of a ledger's economy. What was opened under a version keeps it."""


@policy.command()
@place.readable
@options.json_output
def show(as_json: bool, **where: Any) -> None:
    """Print the policy in force, as a file that can be changed and published."""
    with open_desk(**where) as desk:
        found = desk.counter.policy()
    if as_json:
        emit(**policyfile.to_json(found))
        return
    say(f"version {found.version}, {found.id.hex()}")
    click.echo(policyfile.to_toml(found), nl=False)


@policy.command()
@click.option("--swarm", type=click.Choice(["trusted", "open"]), default="trusted", show_default=True)
@options.json_output
def template(swarm: str, as_json: bool) -> None:
    """Print what a new ledger may begin with: for friends or a company, or for strangers."""
    found = policyfile.example(swarm)
    if as_json:
        emit(**policyfile.to_json(found))
    else:
        click.echo(policyfile.to_toml(found), nl=False)


@policy.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@place.writable
@options.json_output
def publish(file: Path, yes: bool, as_json: bool, **where: Any) -> None:
    """Publish FILE as the next version of the policy, after showing what will be another."""
    if as_json and not yes:
        raise click.UsageError("with --json nobody is asked: give --yes too")
    from nectar_protocol.commands import PublishPolicy

    with open_desk(**where) as desk:
        old = desk.counter.policy()
        new = policyfile.read_policy(file, old.version + 1)
        changes = policyfile.differences(old, new)
        for change in changes:
            say(change)
        if not changes:
            raise click.UsageError(f"{file} is the policy in force, version {old.version}: there is nothing to publish")
        if not yes:
            click.confirm(f"Publish this as version {new.version}?", abort=True, err=True)
        index = desk.issue(PublishPolicy, "policy", policy=new)
    if as_json:
        emit(index=index, version=new.version, id=new.id.hex(), changes=changes)
    else:
        click.echo(f"version {new.version}, {new.id.hex()}, is entry {index}")
