"""`nectar demo`"""

from pathlib import Path

import click

from nectar.cli import options


@click.command(short_help="A whole swarm on this machine, one of whose nodes dies.")
@click.option("--prompt", default="When an error happens, the program", show_default=True, help="What to continue.")
@click.option("--keep", is_flag=True, help="Leave the swarm running until Ctrl-C, to try it by hand.")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), hidden=True, help="Save the screen as SVG.")
@options.json_output
def command(prompt: str, keep: bool, picture: Path | None, as_json: bool) -> None:
    """Run a whole swarm on this machine, kill one of its nodes in mid-sentence, and see the sentence finished."""
    from nectar_demo.demo import run_demo

    run_demo(prompt, keep=keep, as_json=as_json, picture=picture)
