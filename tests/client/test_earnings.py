"""`nectar node` and its credits, as the operator meets them: what goes together, and what a node has earned."""

import json
from pathlib import Path

import pytest
from nectar_node.till.spool import Spool, State, spool_path
from nectar_swarm.keyfile import create_key

from tests.client.test_cli import FAULTY, UNREACHABLE, USAGE, Nectar, assert_one_line, nectar
from tests.node.till.receipts import NODE, signed

__all__ = ["nectar"]
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """Of a node that has had four sessions: two are in the log, one is not, one was refused."""
    path = tmp_path / "data" / "node.key"
    create_key(path, NODE)
    spool = Spool(spool_path(path))
    for name, units in (("proved", 1000), ("old", 500), ("kept", 30), ("refused", 7)):
        spool.put(signed(name, 3, units, final=True), 10**15, units, 0)
    states = {"proved": State.PROVED, "old": State.PROVED, "refused": State.REFUSED}
    for name, state in states.items():
        spool.mark(spool.lines[signed(name, 3).receipt.hold], state, 1, "over the line's cap (over-cap)")
    spool.close()
    return path


def test_a_node_needs_a_model_and_who_earns_needs_a_ledger(nectar: Nectar) -> None:
    assert_one_line(nectar("node"), USAGE, "--model")
    assert_one_line(nectar("node", "-m", "x", "--owner", "00" * 32), USAGE, "--ledger")
    assert_one_line(nectar("node", "-m", "x", "--unmetered", "refuse"), USAGE, "--ledger")
    assert_one_line(nectar("node", "-m", "x", "--ledger", NOWHERE, "--owner", "zz"), USAGE, "64 digits")
    assert_one_line(nectar("node", "-m", "x", "--ledger", NOWHERE, "--owner-key", "no.key"), FAULTY, "no.key")


def test_an_owners_key_is_that_of_the_owner(nectar: Nectar, tmp_path: Path) -> None:
    create_key(tmp_path / "owner.key", NODE)
    options = ("--ledger", NOWHERE, "--owner-key", "owner.key", "--owner", "00" * 32)
    assert_one_line(nectar("node", "-m", "x", *options), USAGE, NODE.public.hex())


def test_there_is_no_status_of_a_node_that_never_was(nectar: Nectar, tmp_path: Path) -> None:
    assert_one_line(nectar("node", "status"), FAULTY, "no key file")
    create_key(tmp_path / "data" / "node.key")
    assert_one_line(nectar("node", "status"), FAULTY, "no node with this key")


def test_status_says_what_was_earned_and_what_waits(nectar: Nectar, key_file: Path) -> None:
    told = json.loads(nectar("node", "status", "--json", "--key", str(key_file)).stdout)
    assert told == {
        "node": NODE.public.hex(), "ledger": None, "binding": "", "sessions": 3, "units": 1530, "tokens": 9,
        "earned_ucr": 1530, "unposted": 1, "unposted_ucr": 30, "refused": ["over the line's cap (over-cap)"],
        "paid": None,
    }  # fmt: skip
    text = nectar("node", "status").stdout  # its own key file lies where nodes have theirs
    for words in ("3 sessions under holds: 9 tokens, 1530 units", "0.00153 credits", "0.00003 credits", "over-cap"):
        assert words in text


def test_a_ledger_that_cannot_be_reached_is_one_clear_line(nectar: Nectar, key_file: Path) -> None:
    assert_one_line(nectar("node", "status", "--ledger", NOWHERE), UNREACHABLE, "cannot be reached")
