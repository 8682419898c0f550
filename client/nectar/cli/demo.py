"""`nectar demo`"""

import click

from nectar.cli import options


@click.command()
@click.option("--prompt", default="When an error happens, the program", show_default=True, help="What to continue.")
@click.option("--keep", is_flag=True, help="Leave the swarm running until Ctrl-C, to try it by hand.")
@options.json_output
def command(prompt: str, keep: bool, as_json: bool) -> None:
    """Run a whole swarm on this machine, kill one of its nodes in mid-sentence, and see the sentence finished."""
    from nectar_demo.demo import run_demo

    run_demo(prompt, keep=keep, as_json=as_json)
