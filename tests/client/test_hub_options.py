"""What the command does with a hub: the environment names it, the options bound it, and errors are one clear line."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from nectar.cli.options import parse_bytes

from tests.hubserver import REPOSITORY, HubServer, serve

CONTEXT, PARAMETER = click.Context(click.Command("node")), click.Option(["--max-disk"])


@pytest.fixture
def hub(tiny_llama: Path) -> Iterator[HubServer]:
    with serve(tiny_llama) as server:
        yield server


@pytest.fixture
def node(hub: HubServer, tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs `nectar node` with the hub's model until it ends by itself."""

    def run(*options: str, model: str = REPOSITORY) -> "subprocess.CompletedProcess[str]":
        environment = os.environ | {
            "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "HOME": str(tmp_path),
            "NECTAR_CACHE": str(tmp_path / "cache"), "NECTAR_HOME": str(tmp_path / "data"),
        }  # fmt: skip
        command = [sys.executable, "-m", "nectar.cli", "node", "--model", model, "--blocks", "2:4", *options]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment, check=False
        )

    return run


def test_a_node_that_has_no_room_on_disk_says_so_and_fetches_nothing(
    hub: HubServer, node: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    done = node("--host", "127.0.0.1", "--max-disk", "1KB")
    assert done.returncode == 3, done.stderr
    assert "raise it, or serve fewer blocks" in done.stderr
    assert hub.fetched() == []


def test_offline_a_node_asks_nothing(hub: HubServer, node: Callable[..., "subprocess.CompletedProcess[str]"]) -> None:
    done = node("--offline")
    assert done.returncode == 3, done.stderr
    assert "without --offline" in done.stderr
    assert hub.requests.total() == 0


@pytest.mark.parametrize(
    ("text", "count"),
    [("200GB", 200 * 10**9), ("1.5 TiB", 3 * 2**39), ("500mb", 500 * 10**6), ("1000", 1000), ("7B", 7)],
)
def test_a_size_has_a_unit_or_is_in_bytes(text: str, count: int) -> None:
    assert parse_bytes(CONTEXT, PARAMETER, text) == count


@pytest.mark.parametrize("text", ["", "0", "-1GB", "many", "10 XB", "1e9", "9" * 30, "1IB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="200GB"):
        parse_bytes(CONTEXT, PARAMETER, text)
