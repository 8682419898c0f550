"""`nectar wallet` as its owner meets it, on a ledger that runs."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from nectar_ledger_client.binding import make_request
from nectar_protocol.identity import Identity
from nectar_protocol.policy import EXAMPLE
from nectar_swarm.keyfile import create_key, load_key

from tests.client.commandline import FAULTY, UNREACHABLE, USAGE, Nectar, assert_one_line, runner
from tests.ledger.api.served import LiveClock, Served, serve
from tests.ledger.world import World, person

STEP = 1_000_000  # µcr: a purse moves whole credits here


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    world = World(replace(EXAMPLE, grants_ucr=10**15), start_ms=time.time_ns() // 1_000_000)
    clock = LiveClock(world.start_ms)
    served, stop = serve(tmp_path_factory.mktemp("ledger"), world, orders=[world.publish_model()], clock=clock)
    clock.is_live = True
    yield served
    stop()


@pytest.fixture
def nectar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Nectar:
    """Runs `nectar wallet …` in this process, in an empty folder with a home of its own."""
    monkeypatch.setenv("NECTAR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return runner("wallet", monkeypatch, capsys)


@pytest.fixture
def mine(nectar: Nectar, ledger: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Identity:
    """A wallet that has ten credits on the ledger that the environment names."""
    monkeypatch.setenv("NECTAR_LEDGER", ledger.url)
    nectar()
    identity = load_key(tmp_path / "home" / "wallet.key")
    ledger.record(ledger.world.grant(identity, 10 * STEP))
    return identity


def test_a_wallet_is_made_on_first_use_for_its_owner_alone(nectar: Nectar, ledger: Served, tmp_path: Path) -> None:
    shown = nectar("--ledger", ledger.url, "--json").json()
    path = Path(shown["file"])
    assert path == tmp_path / "home" / "wallet.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert shown == {
        "account": load_key(path).public.hex(), "balance_ucr": "0", "purse_ucr": "0", "open_holds": 0, "nodes": [],
        "file": str(path),
    }  # fmt: skip
    again = nectar("--ledger", ledger.url)
    assert shown["account"] in again.out
    assert "balance   0 credits" in again.out


def test_without_a_ledger_it_says_how_to_name_one(nectar: Nectar) -> None:
    for arguments in ((), ("statement",), ("fund", "1"), ("bind", "00")):
        assert_one_line(nectar(*arguments), USAGE, "--ledger", "ledger_url")
    assert_one_line(nectar("--ledger", "http://127.0.0.1:1"), UNREACHABLE, "cannot be reached")
    assert_one_line(nectar("--ledger", "somewhere"), FAULTY, "not a ledger's address")


def test_the_ledger_can_stand_in_nectar_toml_beside_the_table_of_its_commands(
    nectar: Nectar, ledger: Served, tmp_path: Path
) -> None:
    (tmp_path / "nectar.toml").write_text(f'ledger_url = "{ledger.url}"\n[ledger.verify]\ndata = "elsewhere"\n')
    assert nectar("--json").json()["balance_ucr"] == "0"
    assert nectar("statement", "--json").lines() == []


def test_credits_move_between_balance_and_purse_by_round_amounts(nectar: Nectar, mine: Identity) -> None:
    assert nectar("fund", "7", "--json").json()["purse_ucr"] == str(7 * STEP)
    assert "the purse has 5 credits now" in nectar("withdraw", "2").out
    shown = nectar("--json").json()
    assert (shown["balance_ucr"], shown["purse_ucr"]) == (str(5 * STEP), str(5 * STEP))
    assert_one_line(nectar("fund", "0.5"), FAULTY, "multiples of 1000000")
    assert_one_line(nectar("fund", "much"), USAGE, "not an amount of credits")
    assert_one_line(nectar("fund", "50"), FAULTY, "insufficient-funds")
    amounts = [int(line["amount_ucr"]) for line in nectar("statement", "--json").lines()]
    assert amounts == [2 * STEP, -7 * STEP, 10 * STEP]
    amounts = [int(line["amount_ucr"]) for line in nectar("statement", "--purse", "--json").lines()]
    assert amounts == [-2 * STEP, 7 * STEP]
    assert len(nectar("statement", "--most", "1").out.splitlines()) == 1


def test_holds_are_shown_with_what_nodes_did(nectar: Nectar, mine: Identity, ledger: Served) -> None:
    world, node, session = ledger.world, person("a node"), person("a session")
    ledger.record(world.bind(node, person("an owner")))
    nectar("fund", "5")
    hold = ledger.open(world.open_hold(mine, session, {node: 1_000_000}, ledger.clock() + 60_000, weight=2))
    ledger.record(world.receipt(hold, node, session, 1, 3))
    (shown,) = nectar("holds", "--json").lines()
    assert shown["hold"] == hold.id.hex()
    assert (shown["weight"], shown["state"]) == (2, "open")
    assert shown["lines"][0]["units"] == shown["units"] > 0
    assert hold.id.hex()[:16] in nectar("holds").out
    assert "1 open holds" in nectar().out


def test_a_node_is_bound_by_the_line_that_it_prints(nectar: Nectar, mine: Identity, ledger: Served) -> None:
    node, now_ms = Identity.generate(), time.time_ns() // 1_000_000
    request = make_request(node, mine.public, ledger.world.ledger, now_ms)
    assert nectar("bind", request, "--json").json()["node"] == node.public.hex()
    assert nectar("--json").json()["nodes"] == [node.public.hex()]
    for wrong, words in (
        (make_request(node, person("another").public, ledger.world.ledger, now_ms), "not this wallet's"),
        (make_request(node, mine.public, bytes(32), now_ms), "this is"),
        (request[:-2] + "ff", "no node's request"),
        ("honey", "no node's request"),
    ):
        assert_one_line(nectar("bind", wrong), FAULTY, words)


def test_a_key_is_taken_to_another_machine_and_none_is_lost(nectar: Nectar, mine: Identity, tmp_path: Path) -> None:
    line = nectar("export")
    assert "secret" in line.err
    assert nectar("export", "copy.key", "--json").json()["account"] == mine.public.hex()
    assert (tmp_path / "copy.key").stat().st_mode & 0o777 == 0o600
    assert_one_line(nectar("export", "copy.key"), FAULTY, "never overwritten")
    (tmp_path / "line.txt").write_text(line.out)
    for source in ("copy.key", "line.txt"):
        taken = nectar("import", source, "--wallet", f"{source}.taken", "--json").json()
        assert taken["account"] == mine.public.hex()
        assert load_key(tmp_path / f"{source}.taken") == mine


def test_another_key_is_not_overwritten_unless_it_is_meant(nectar: Nectar, mine: Identity, tmp_path: Path) -> None:
    other = create_key(tmp_path / "other.key")
    assert_one_line(nectar("import", "other.key"), FAULTY, "the key of another account", "--force")
    forced = nectar("import", "other.key", "--force", "--json").json()
    assert load_key(Path(forced["kept"])) == mine
    assert load_key(tmp_path / "home" / "wallet.key") == other
    assert nectar("import", "other.key").code == 0


def test_what_is_no_key_is_one_clear_line(nectar: Nectar, tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(b"noise")
    assert_one_line(nectar("import", "noise"), FAULTY, "no wallet's key")
    assert_one_line(nectar("import", "nowhere"), FAULTY, "cannot read nowhere")
    assert_one_line(nectar("export"), FAULTY, "there is no key file")
