"""`nectar ledger` as its operator meets it, in a folder, with a ledger that runs, and with one that was lost."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from nectar.cli.ledger import model, running
from nectar_ledger.store.engines import open_database
from nectar_ledger.store.reading import read_rows
from nectar_ledger.store.tables import accounts
from nectar_protocol.identity import Identity
from nectar_protocol.note import NoteKey

from tests.client.commandline import FAULTY, UNREACHABLE, USAGE, Nectar, assert_one_line, runner

NETWORK = "ledger.example/test"
ALICE = Identity.from_seed(bytes(32))


@pytest.fixture
def nectar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Nectar:
    """Runs `nectar ledger …` in this process, in an empty folder with a home of its own."""
    monkeypatch.setenv("NECTAR_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    # For a process that is the command's alone.
    for module in (model, running):
        monkeypatch.setattr(module, "configure_logging", lambda verbose: None)
    return runner("ledger", monkeypatch, capsys)


@pytest.fixture
def ledger(nectar: Nectar, tmp_path: Path) -> Path:
    """The folder of a new ledger."""
    assert nectar("init", NETWORK).code == 0
    return tmp_path / "home" / "ledger"


def write_policy(path: Path, toml: str, **changes: str) -> Path:
    """Of a printed policy, some lines otherwise; `None` leaves a line out."""
    lines = [line for line in toml.splitlines() if line.partition(" ")[0] not in changes]
    lines += [f"{name} = {value}" for name, value in changes.items() if value]
    path.write_text("\n".join(lines))
    return path


def test_a_ledger_is_made_once(nectar: Nectar, tmp_path: Path) -> None:
    made = nectar("init", NETWORK, "--json").json()
    assert len(bytes.fromhex(made["ledger"])) == 32
    assert NoteKey.parse(made["log_key"]).name == NETWORK
    assert Path(made["data"]) == tmp_path / "home" / "ledger"
    assert_one_line(nectar("init", NETWORK), FAULTY, "never overwritten")
    assert_one_line(nectar("init", "no name", "--data", "other"), FAULTY, "no name")
    assert_one_line(nectar("init", NETWORK, "--data", "other", "--database", "mysql://x/y"), FAULTY, "mysql")


def test_commands_without_a_ledger_say_how_to_make_one(nectar: Nectar) -> None:
    for arguments in (("verify",), ("rebuild",), ("export",), ("policy", "show"), ("serve",), ("backup", "file")):
        assert_one_line(nectar(*arguments), FAULTY, "nectar ledger init")


def test_a_database_that_is_none_is_one_clear_line(nectar: Nectar, ledger: Path, tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(b"noise" * 1000)
    for url, words in (
        ("postgresql://localhost:1/ledger", "cannot be opened"),
        (f"sqlite:///{tmp_path / 'noise'}", "not a database"),
        (f"sqlite:///{tmp_path / 'empty'}", "no tables of a ledger"),
    ):
        for arguments in (("verify",), ("policy", "show"), ("export",), ("grant", ALICE.peer_id, "1"), ("serve",)):
            assert_one_line(nectar(*arguments, "--database", url), FAULTY, words)


def test_a_policy_is_shown_changed_and_published(nectar: Nectar, ledger: Path, tmp_path: Path) -> None:
    shown = nectar("policy", "show")
    assert "price = 1_000_000  # µcr for 10^6 units" in shown.out
    assert shown.out == nectar("policy", "template").out
    file = str(write_policy(tmp_path / "policy.toml", shown.out, price="2_000_000"))
    published = nectar("policy", "publish", file, "--yes", "--json")
    assert published.json()["changes"] == ["price 1_000_000 → 2_000_000"]
    assert published.json()["version"] == 2
    assert "price 1_000_000 → 2_000_000" in published.err
    now = nectar("policy", "show", "--json").json()
    assert (now["version"], now["price"], now["purse_step_ucr"]) == (2, 2_000_000, "1000000")
    assert_one_line(nectar("policy", "publish", file, "--yes"), USAGE, "nothing to publish")
    assert "--yes" in nectar("policy", "publish", file, "--json").json()["error"]


def test_nothing_is_published_unless_the_operator_agrees(
    nectar: Nectar, ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_policy(tmp_path / "policy.toml", nectar("policy", "show").out, price="5")
    for answer, version in (("n\n", 1), ("y\n", 2)):
        read, write = os.pipe()
        os.write(write, answer.encode())
        os.close(write)
        with os.fdopen(read) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            nectar("policy", "publish", str(file))
        assert nectar("policy", "show", "--json").json()["version"] == version


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"price": ""}, ("lacks price",)),
        ({"colour": "1"}, ("no 'colour'",)),
        ({"price": "1.5"}, ("price is a whole number",)),
        ({"price": "true"}, ("price is a whole number",)),
        ({"price": "-1"}, ("price = -1",)),
        ({"swarm": '"closed"'}, ("trusted",)),
        ({"swarm": '"open"'}, ("probes_ppm",)),
        ({"price": "["}, ("policy.toml",)),
    ],
)
def test_what_is_wrong_in_a_policy_is_said(
    nectar: Nectar, ledger: Path, tmp_path: Path, changes: dict[str, str], words: tuple[str, ...]
) -> None:
    file = write_policy(tmp_path / "policy.toml", nectar("policy", "template").out, **changes)
    assert_one_line(nectar("policy", "publish", str(file), "--yes"), USAGE, *words)
    assert_one_line(nectar("init", NETWORK, "--data", "other", "--policy", str(file)), USAGE, *words)
    assert not (tmp_path / "other").exists()


def test_a_policy_has_every_field_with_its_unit(nectar: Nectar) -> None:
    from nectar.cli.ledger.policyfile import NOTES
    from nectar_protocol.policy import Policy

    assert ["version", *NOTES] == [name for name, _ in Policy.layout()]
    open_swarm = nectar("policy", "template", "--swarm", "open", "--json").json()
    assert (open_swarm["swarm"], open_swarm["probes_ppm"]) == ("open", 3_000_000)


def test_credits_are_granted_within_the_policy(nectar: Nectar, ledger: Path) -> None:
    granted = nectar("grant", ALICE.peer_id, "12.5", "--json").json()
    assert (granted["account"], granted["amount_ucr"]) == (ALICE.public.hex(), "12500000")
    assert "0.5 credits" in nectar("grant", ALICE.public.hex(), "0.5").out
    assert_one_line(nectar("grant", ALICE.peer_id, "1000"), FAULTY, "87000000", "wrong-amount")
    assert_one_line(nectar("grant", ALICE.peer_id, "1.0000001"), USAGE, "0.000001")
    assert_one_line(nectar("grant", "alice", "1"), USAGE, "12D3")
    assert nectar("verify").code == 0


def test_keys_are_set_and_revoked(nectar: Nectar, ledger: Path, tmp_path: Path) -> None:
    key = ALICE.public.hex()
    assert nectar("key", "set", key, "auditor", "--json").json()["state"] == "active"
    assert nectar("key", "set", key, "auditor", "--json").json()["index"] is None
    assert "is revoked for auditor" in nectar("key", "revoke", ALICE.peer_id, "auditor").out
    assert "was revoked for auditor already" in nectar("key", "revoke", key, "auditor").out
    assert_one_line(nectar("key", "set", key, "king"), USAGE, "auditor")


def test_a_key_that_lies_elsewhere_signs(nectar: Nectar, ledger: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "operator.key"
    (ledger / "keys" / "operator.key").rename(elsewhere)
    assert_one_line(nectar("grant", ALICE.peer_id, "1"), FAULTY, "operator.key")
    assert nectar("grant", ALICE.peer_id, "1", "--signing-key", str(elsewhere)).code == 0
    policy_key = str(ledger / "keys" / "policy.key")
    assert_one_line(nectar("grant", ALICE.peer_id, "1", "--signing-key", policy_key), FAULTY, "not-authorized")


def test_an_audit_ends_with_what_it_found(nectar: Nectar, ledger: Path) -> None:
    sound = nectar("verify", "--json")
    assert (sound.code, sound.json()["found"], sound.json()["size"]) == (0, 0, 1)
    assert "all as they should be" in nectar("verify", "--no-signatures").out
    nectar("grant", ALICE.peer_id, "1")
    database = open_database(f"sqlite:///{ledger / 'ledger.db'}")
    with database.writing.begin() as connection:
        rows = list(read_rows(connection, accounts))
        database.put(connection, accounts, [(*rows[-1][:5], 5_000_000, *rows[-1][6:])])
    database.writing.dispose()
    found = nectar("verify", "--json")
    assert found.code == FAULTY
    assert [(one["place"], one["message"]) for one in found.json()["findings"]] == [
        ("accounts 4", "credits is 5000000, not 1000000")
    ]
    assert "accounts 4: credits is 5000000, not 1000000" in nectar("verify").out
    assert nectar("rebuild", "--json").json()["size"] == 3
    assert nectar("verify").code == 0
    assert_one_line(nectar("verify", "--log-key", "x"), USAGE, "--tiles")


def test_anybody_verifies_what_was_exported(nectar: Nectar, ledger: Path, tmp_path: Path) -> None:
    nectar("grant", ALICE.peer_id, "1")
    key = nectar("init", NETWORK, "--data", "other", "--json").json()["log_key"]
    assert nectar("export", "log", "--json").json() == {"folder": "log", "size": 3, "files": 3}
    shown = nectar("verify", "--tiles", "log", "--json").json()
    assert (shown["found"], shown["supply"]["emitted_ucr"]) == (0, "1000000")
    assert nectar("verify", "--tiles", "log", "--log-key", key).code == FAULTY
    assert_one_line(nectar("verify", "--tiles", "other"), FAULTY, "no log")
    entries = nectar("export").lines()
    assert [entry["kind"] for entry in entries] == ["genesis", "resume", "grant"]
    assert entries[2]["body"]["amount_ucr"] == "1000000"
    assert [entry["index"] for entry in nectar("export", "--start", "2").lines()] == [2]


def test_a_backup_comes_back_and_an_old_one_never_signs(nectar: Nectar, ledger: Path, tmp_path: Path) -> None:
    assert nectar("backup", "old", "--json").json()["bytes"] > 0
    nectar("grant", ALICE.peer_id, "1")
    nectar("backup", "new")
    assert_one_line(nectar("backup", "new"), FAULTY, "never overwritten")
    assert_one_line(nectar("restore", "new"), FAULTY, "move it away")
    (ledger / "ledger.db").rename(tmp_path / "lost")
    assert_one_line(nectar("verify"), FAULTY, "--database")
    restored = nectar("restore", "old", "--json").json()
    assert restored == {"size": 1, "published": 3, "signs": False}
    assert_one_line(nectar("serve"), FAULTY, "Nothing is signed")
    assert_one_line(nectar("grant", ALICE.peer_id, "1"), FAULTY, "Nothing is signed")
    (ledger / "ledger.db").unlink()
    assert nectar("restore", "new", "--json").json() == {"size": 3, "published": 3, "signs": True}
    assert nectar("grant", ALICE.peer_id, "1").code == 0


def test_a_models_entry_follows_from_its_files(nectar: Nectar, ledger: Path, tiny_llama: Path, tmp_path: Path) -> None:
    from nectar_swarm.source import open_source

    first = nectar("model", "add", str(tiny_llama), "--json").json()
    assert first["model"] == open_source(str(tiny_llama)).manifest.model_id.hex()
    assert (first["version"], first["blocks"]) == (1, 8)
    alone = ("model", "add", str(tiny_llama / "config.json"))
    assert_one_line(nectar(*alone), USAGE, "--id")
    second = nectar(*alone, "--id", first["model"], "--enforced", "--json").json()
    assert (second["version"], second["model"]) == (2, first["model"])
    entries = {entry["index"]: entry["body"] for entry in nectar("export").lines()}
    old, new = (entries[added["index"]]["entry"] for added in (first, second))
    assert (old["costs"], old["state"], new["state"]) == (new["costs"], "shadow", "enforced")
    assert "8 blocks from 0 on" in nectar("model", "add", str(tiny_llama)).err
    (tmp_path / "config.json").write_text('{"model_type": "nothing"}')
    assert nectar("model", "add", str(tmp_path / "config.json"), "--id", first["model"]).code == USAGE


def test_an_address_that_is_taken_is_one_clear_line(nectar: Nectar, ledger: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for host in ("127.0.0.1", "192.0.2.1"):
            done = nectar("serve", "--host", host, "--port", port)
            assert_one_line(done, FAULTY, f"cannot listen on {host}, port {port}")


@pytest.fixture
def served(ledger: Path, tmp_path: Path) -> Iterator[str]:
    """The address of the ledger, in a process of its own."""
    command = [sys.executable, "-m", "nectar.cli", "ledger", "serve", "--port", "0", "--json"]
    environment = {**os.environ, "NECTAR_HOME": str(tmp_path / "home")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield json.loads(line)["url"]
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
    finally:
        process.kill()
        process.communicate()


def test_a_ledger_that_runs_is_steered_by_its_address(
    nectar: Nectar, ledger: Path, served: str, tmp_path: Path, tiny_llama: Path
) -> None:
    assert_one_line(nectar("grant", ALICE.peer_id, "1"), FAULTY, "--ledger URL")
    there = ("--ledger", served)
    granted = nectar("grant", ALICE.peer_id, "1", *there, "--json").json()
    assert granted["index"] == 2
    assert nectar("key", "set", ALICE.peer_id, "auditor", *there, "--json").json()["index"] == 3
    assert nectar("key", "set", ALICE.peer_id, "auditor", *there, "--json").json()["index"] is None
    file = write_policy(tmp_path / "policy.toml", nectar("policy", "show", *there).out, price="7")
    assert nectar("policy", "publish", str(file), "--yes", *there, "--json").json()["version"] == 2
    for version in (1, 2):
        assert nectar("model", "add", str(tiny_llama), *there, "--json").json()["version"] == version
    assert_one_line(nectar("grant", ALICE.peer_id, "1000", *there), FAULTY, "wrong-amount")
    assert nectar("verify").code == 0
    assert nectar("backup", "copy").code == 0
    assert nectar("export", "log", "--json").json()["size"] >= 1
    assert nectar("verify", "--tiles", "log").code == 0
    assert_one_line(nectar("rebuild"), FAULTY, "another process")
    assert_one_line(nectar("serve", "--port", "0"), FAULTY, "another process")
    nothing = ("--ledger", "http://127.0.0.1:1")
    assert_one_line(nectar("policy", "show", *nothing), UNREACHABLE, "cannot be reached")
    assert_one_line(nectar("policy", "show", "--ledger", "nowhere"), FAULTY, "https://")
