"""Nodes that nobody can dial serve, and nodes that cannot dial each other work together: in networks of their own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from nectar_demo import MODEL_FOLDER
from nectar_demo.processes import NodeProcess
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.integration.star import CENTRE_IP, Star, StarError

PROMPT, NEW_TOKENS = "A function is", 48

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not all(map(shutil.which, ("ip", "unshare", "nsenter"))),
    reason="needs Linux's network namespaces, and iproute2 and util-linux to make them",
)


@pytest.fixture
def star() -> Iterator[Star]:
    star = Star()
    try:
        yield star.open()
    except StarError as error:
        pytest.skip(str(error))
    finally:
        star.close()


class Bootstrap:
    """A bootstrap peer in the centre."""

    def __init__(self, star: Star, folder: Path, name: str, *peers: "Bootstrap") -> None:
        self.log = folder / f"{name}.log"
        command = [*star.centre, sys.executable, "-m", "nectar.cli", "bootstrap", "--host", CENTRE_IP, "--json", "-v"]
        command += ["--key", str(folder / f"{name}.key"), *named(peers)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder)
        assert self.process.stdout is not None
        self.address: str = json.loads(self.process.stdout.readline())["addresses"][0]

    def carried(self, circuit: str) -> bool:
        """Has it carried circuits, from one peer or to another?"""
        return circuit in self.log.read_text()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def start_bootstrap(star: Star, tmp_path: Path) -> Iterator[Callable[..., Bootstrap]]:
    started: list[Bootstrap] = []

    def start() -> Bootstrap:
        started.append(Bootstrap(star, tmp_path, f"bootstrap{len(started)}", *started))
        return started[-1]

    yield start
    for bootstrap in started:
        bootstrap.stop()


@pytest.fixture
def bootstrap(start_bootstrap: Callable[..., Bootstrap]) -> Bootstrap:
    return start_bootstrap()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., NodeProcess]]:
    """Starts nodes of the demo's model."""
    nodes: list[NodeProcess] = []

    def start(within: Sequence[str], blocks: str, *peers: Bootstrap, options: Sequence[str] = ()) -> NodeProcess:
        known = [peer.address for peer in peers]
        nodes.append(NodeProcess(f"node{len(nodes)}", tmp_path, MODEL_FOLDER, blocks, known, options, within))
        return nodes[-1].wait()

    yield start
    for node in nodes:
        node.stop()


def named(peers: Sequence[Bootstrap]) -> list[str]:
    return [part for peer in peers for part in ("--initial-peers", peer.address)]


def generating(within: Sequence[str], folder: Path, *options: str) -> "subprocess.Popen[str]":
    """A client that makes a text there."""
    command = [*within, sys.executable, "-m", "nectar.cli", "generate", PROMPT, "-m", str(MODEL_FOLDER)]
    command += ["-n", str(NEW_TOKENS), "--patience", "30", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)


def generate(within: Sequence[str], folder: Path, *options: str) -> dict[str, Any]:
    """What a client says of a text that it has made there."""
    client = generating(within, folder, "--json", *options)
    out, errors = client.communicate(timeout=180)
    assert client.returncode == 0, out + errors
    told: dict[str, Any] = json.loads(out)
    return told


@pytest.fixture(scope="module")
def text() -> str:
    """What the whole model says on this machine."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL_FOLDER)
    model = AutoModelForCausalLM.from_pretrained(MODEL_FOLDER, dtype=torch.float32).eval()
    inputs = tokenizer(PROMPT, return_tensors="pt")
    out = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
    return str(tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


@pytest.mark.slow
def test_a_node_that_nobody_can_dial_finds_that_out_and_serves_through_a_relay(
    star: Star, bootstrap: Bootstrap, start: Callable[..., NodeProcess], text: str, tmp_path: Path
) -> None:
    node = start(star.add_leaf(), "0:8", bootstrap)  # it listens on its own loopback only, as behind a firewall
    assert node.serving["addresses"] == [f"{bootstrap.address}/p2p-circuit/p2p/{node.peer}"]
    told = generate(star.add_leaf(), tmp_path, "-p", node.address)
    assert told["text"] == text
    assert [hop["peer"] for hop in told["route"]] == [node.peer]
    assert told["repairs"] == []


@pytest.mark.slow
def test_two_nodes_that_cannot_dial_each_other_are_joined_by_a_relay(
    star: Star, bootstrap: Bootstrap, start: Callable[..., NodeProcess], text: str, tmp_path: Path
) -> None:
    first = start(star.add_leaf(), "0:4", bootstrap)
    second = start(star.add_leaf(), "4:8", bootstrap, options=("--reachability", "private"))
    told = generate(star.centre, tmp_path, "-p", bootstrap.address)
    assert told["text"] == text
    assert [hop["peer"] for hop in told["route"]] == [first.peer, second.peer]
    assert bootstrap.carried(f"from {first.peer} to {second.peer}")


@pytest.mark.slow
def test_without_a_relay_the_link_of_two_nodes_that_cannot_dial_each_other_runs_through_the_client(
    star: Star, bootstrap: Bootstrap, start: Callable[..., NodeProcess], text: str, tmp_path: Path
) -> None:
    first, second = (start(star.add_leaf(), span, bootstrap, options=("--host", "0.0.0.0")) for span in ("0:4", "4:8"))
    assert not any("p2p-circuit" in address for node in (first, second) for address in node.serving["addresses"])
    told = generate(star.centre, tmp_path, "-p", bootstrap.address)
    assert told["text"] == text
    assert [hop["peer"] for hop in told["route"]] == [first.peer, second.peer]
    assert not bootstrap.carried("a circuit")


@pytest.mark.slow
def test_a_session_survives_the_death_of_its_relay(
    star: Star, start_bootstrap: Callable[..., Bootstrap], start: Callable[..., NodeProcess], text: str, tmp_path: Path
) -> None:
    relays = start_bootstrap(), start_bootstrap()
    node = start(star.add_leaf(), "0:8", *relays)
    client = generating(star.add_leaf(), tmp_path, "--link-delay-ms", "20", *named(relays))
    assert client.stdout is not None
    said = os.read(client.stdout.fileno(), 8).decode()  # a read of the stream's would keep what communicate() looks for
    (used,) = (relay for relay in relays if relay.carried(f"to {node.peer}"))
    used.stop()
    rest, errors = client.communicate(timeout=180)
    assert client.returncode == 0, errors
    assert (said + rest).strip() == text.strip()
    (other,) = (relay for relay in relays if relay is not used)
    assert other.carried(f"to {node.peer}")
