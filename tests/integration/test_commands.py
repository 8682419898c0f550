"""The commands against a real swarm: generate, swarm, join, bootstrap, an allow-list, and no process left behind."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from nectar_demo import MODEL_FOLDER
from nectar_demo.processes import NodeProcess


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def bootstrap(home: Path) -> Iterator[str]:
    """A bootstrap peer's address."""
    command = [sys.executable, "-m", "nectar.cli", "bootstrap", "--host", "127.0.0.1", "--json"]
    process = subprocess.Popen(
        [*command, "--key", str(home / "bootstrap.key")], stdout=subprocess.PIPE, text=True, cwd=home
    )
    assert process.stdout is not None
    yield json.loads(process.stdout.readline())["addresses"][0]
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 0
    process.stdout.close()


@pytest.fixture(scope="module")
def node(home: Path, bootstrap: str) -> Iterator[NodeProcess]:
    """A node that was left to choose its blocks, of the demo's model."""
    node = NodeProcess("chooser", home, MODEL_FOLDER, None, [bootstrap]).wait()
    yield node
    node.stop()


def nectar(home: Path, *arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "nectar.cli", *arguments],
        capture_output=True, text=True, timeout=120, check=False,
        cwd=home, env={**os.environ, "NECTAR_HOME": str(home)},
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout


def test_a_node_without_blocks_takes_the_whole_small_model(node: NodeProcess) -> None:
    assert (node.serving["start"], node.serving["stop"]) == (0, node.serving["blocks"])


def test_generate_streams_text_and_reports_its_route_as_json(node: NodeProcess, home: Path, bootstrap: str) -> None:
    arguments = ("generate", "What is a list?", "--chat", "-m", str(MODEL_FOLDER), "-p", bootstrap, "-n", "12")
    text, told = nectar(home, *arguments), json.loads(nectar(home, *arguments, "--json"))
    assert told["text"].strip()
    assert text.strip() == told["text"].strip()
    assert 0 < told["tokens"] <= 12
    assert told["route"] == [{"peer": node.peer, "start": 0, "stop": node.serving["blocks"]}]


@pytest.mark.slow  # several processes, each of which imports PyTorch
def test_generate_runs_its_ends_on_trusted_peers_or_says_that_none_serves_them(
    node: NodeProcess, home: Path, bootstrap: str
) -> None:
    options = ("-m", str(MODEL_FOLDER), "-p", bootstrap, "-n", "2", "--patience", "2", "--json")
    told = json.loads(nectar(home, "generate", "A function is", *options, "--trusted-peer", node.peer))
    assert told["tokens"] > 0
    assert told["route"][0]["peer"] == node.peer
    (home / "trusted").write_text(f"{json.loads(nectar(home, 'key', '--json'))['peer']}  # not a node\n")
    refused = json.loads(nectar(home, "generate", "A function is", *options, "--trusted-peer", "trusted", code=5))
    assert "no trusted peer serves blocks 0:1" in refused["error"]


def test_swarm_shows_the_model_its_node_and_its_coverage_in_the_swarm_that_join_remembers(
    node: NodeProcess, home: Path, bootstrap: str
) -> None:
    folder = home / "joined"
    folder.mkdir()
    nectar(folder, "swarm", "join", bootstrap)
    told = json.loads(nectar(folder, "swarm", "--json"))
    (model,) = told["models"]
    assert model["coverage"] == [1] * node.serving["blocks"]
    assert [shown["peer"] for shown in model["nodes"]] == [node.peer]
    assert model["nodes"][0]["name"] == "chooser"
    table = nectar(home, "swarm", "-p", bootstrap)
    assert "all blocks served" in table
    assert "chooser" in table
    assert "cpu, f32" in table


def test_blocks_nobody_serves_are_named_with_an_exit_code_of_their_own(
    home: Path, bootstrap: str, tiny_llama: Path
) -> None:
    model = shutil.copytree(tiny_llama, home / "unserved")
    # The tiny Llama has no tokenizer: the demo model's stands in, so that the swarm is asked at all.
    for path in MODEL_FOLDER.glob("*token*"):
        (model / path.name).write_bytes(path.read_bytes())
    options = ("-m", str(model), "-p", bootstrap, "--patience", "1", "--json")
    assert "0:8" in json.loads(nectar(home, "generate", "hi", *options, code=5))["error"]


@pytest.mark.slow  # several processes, each of which imports PyTorch
def test_a_node_with_an_allow_list_serves_the_listed_and_nobody_else(
    home: Path, start_node: Callable[..., Any], tiny_llama: Path
) -> None:
    key = home / "friend.key"
    friend = json.loads(nectar(home, "key", "--file", str(key), "--json"))["peer"]
    private = start_node("0:8", options=("--allowed-peers", friend))

    def seen(*options: str) -> list[str]:
        told = json.loads(nectar(home, "swarm", "-p", private.address, "--json", *options))
        return [shown["state"] for model in told["models"] for shown in model["nodes"]]

    assert seen() in ([], ["silent"])
    assert seen("--key", str(key)) == ["serving"]


@pytest.mark.slow  # several processes, each of which imports PyTorch
def test_a_private_swarm_is_made_and_joined_with_the_lines_that_init_prints(home: Path) -> None:
    folder = home / "private"
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    told = json.loads(nectar(folder, "swarm", "init", "--host", "127.0.0.1", "--port", port, "--json"))
    process = subprocess.Popen(
        [sys.executable, "-m", *told["start"].replace("nectar", "nectar.cli", 1).split(), "--json"],
        stdout=subprocess.PIPE, text=True, cwd=folder, env={**os.environ, "NECTAR_HOME": str(folder)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["addresses"] == [told["address"]]
        assert json.loads(nectar(home, "swarm", "join", told["address"], "--json"))["joined"] == [told["address"]]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
        process.stdout.close()
        (home / "nectar.toml").unlink(missing_ok=True)


def test_interrupting_a_node_ends_it_and_its_p2pd(home: Path, tiny_llama: Path) -> None:
    node = NodeProcess("brief", home, tiny_llama, "0:2").wait()
    daemon = psutil.Process(node.p2pd_pid)
    os.killpg(node.process.pid, signal.SIGINT)  # as a terminal does
    assert node.process.wait(timeout=30) == 0
    daemon.wait(timeout=10)
    node.stop()
    assert "Traceback" not in node.log.read_text()


@pytest.mark.slow  # by two processes; within one, see test_node.py
def test_two_nodes_cannot_use_one_key(home: Path, tiny_llama: Path, node: NodeProcess) -> None:
    told = nectar(
        home, "node", "-m", str(tiny_llama), "--host", "127.0.0.1", "--key", str(home / "chooser.key"), "--json", code=3
    )
    assert "--key" in json.loads(told)["error"]
