"""`python -m nectar.cli` is `nectar`."""

from nectar.cli.main import run

run()
