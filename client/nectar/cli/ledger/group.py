"""The group of `nectar ledger`."""

import click

from nectar.cli.ledger import auditing, copies, model, operator, policy, running


@click.group(
    commands={
        "backup": copies.backup,
        "export": copies.export,
        "grant": operator.grant,
        "init": running.init,
        "key": operator.key,
        "model": model.model,
        "policy": policy.policy,
        "rebuild": auditing.rebuild,
        "restore": copies.restore,
        "serve": running.serve,
        "verify": auditing.verify,
    },
    short_help="Run a ledger of credits, or check one.",
)
def command() -> None:
    """Run a ledger of credits, or check one.

    Commands that change a ledger go to its address (--ledger URL) while it runs, and to its folder while it does not.
    """
