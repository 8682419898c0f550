"""The command as its user meets it: one clear line and a telling exit code for whatever goes wrong."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

Nectar = Callable[..., "subprocess.CompletedProcess[str]"]

FAULTY, USAGE, UNREACHABLE = 3, 2, 4
NOBODY = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf"


@pytest.fixture
def nectar(tmp_path: Path) -> Nectar:
    """Runs the command in an empty folder with a home of its own."""

    def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        home = {"HOME": str(tmp_path / "home"), "NECTAR_HOME": str(tmp_path / "data"), "HF_HUB_OFFLINE": "1"}
        return subprocess.run(
            [sys.executable, "-m", "nectar.cli", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
            env={**os.environ, **home, **environment},
            check=False,
        )

    return run


def assert_one_line(done: "subprocess.CompletedProcess[str]", code: int, *words: str) -> None:
    lines = [line for line in done.stderr.splitlines() if line.strip() and line != "loading …"]
    assert done.returncode == code, done.stderr
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0]


def test_key_is_made_once_with_mode_0600_and_shown_as_json(nectar: Nectar, tmp_path: Path) -> None:
    first, second = nectar("key"), nectar("key", "--json")
    assert first.returncode == second.returncode == 0
    shown = json.loads(second.stdout)
    assert first.stdout.strip() == shown["peer"]
    assert Path(shown["file"]).stat().st_mode & 0o777 == 0o600


def test_an_unreadable_key_file_is_one_clear_line(nectar: Nectar, tmp_path: Path) -> None:
    (tmp_path / "bad.key").write_bytes(b"not a key")
    (tmp_path / "bad.key").chmod(0o600)
    assert_one_line(nectar("key", "--file", "bad.key"), FAULTY, "bad.key", "move it away")
    (tmp_path / "open.key").write_bytes(b"x")
    (tmp_path / "open.key").chmod(0o644)
    assert_one_line(nectar("key", "--file", "open.key"), FAULTY, "chmod 600")


def test_a_wrong_model_name_is_one_clear_line(nectar: Nectar) -> None:
    assert_one_line(nectar("node", "-m", "./nowhere"), FAULTY, "there is no folder ./nowhere")
    assert_one_line(nectar("node", "-m", "no/such-model"), FAULTY, "no/such-model")
    assert_one_line(nectar("node", "-m", "such a name"), FAULTY, "such a name")


def test_a_folder_that_is_no_model_is_one_clear_line(nectar: Nectar, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_one_line(nectar("node", "-m", "./empty"), FAULTY, "config.json")


def test_a_checkpoint_that_lacks_a_tensor_is_one_clear_line(nectar: Nectar, tmp_path: Path, tiny_llama: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    weights, key = {}, "model.layers.3.mlp.up_proj.weight"
    for shard in tiny_llama.glob("*.safetensors"):
        weights.update(load_file(shard))
    del weights[key]
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    (broken / "config.json").write_bytes((tiny_llama / "config.json").read_bytes())
    assert_one_line(nectar("node", "-m", "./broken", "--host", "127.0.0.1"), FAULTY, key)


def test_a_port_in_use_is_one_clear_line(nectar: Nectar, tiny_llama: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = nectar("node", "-m", str(tiny_llama), "--host", "127.0.0.1", "--port", port)
    assert_one_line(done, FAULTY, port, "--port")


@pytest.mark.slow  # many processes, each of which imports PyTorch
def test_no_peer_reachable_is_one_clear_line(nectar: Nectar, tiny_llama: Path) -> None:
    model = str(tiny_llama)
    assert_one_line(nectar("node", "-m", model, "--host", "127.0.0.1", "-p", NOBODY), UNREACHABLE, "reached")
    assert_one_line(nectar("generate", "hi", "-m", model, "-p", NOBODY), UNREACHABLE, "reached")
    assert_one_line(nectar("swarm", "-p", NOBODY), UNREACHABLE, "reached")
    assert_one_line(nectar("swarm", "join", NOBODY), UNREACHABLE, "reached")


@pytest.mark.slow  # many processes, each of which imports PyTorch
def test_wrong_usage_says_what_is_wanted(nectar: Nectar, tiny_llama: Path, tmp_path: Path) -> None:
    model = str(tiny_llama)
    assert_one_line(nectar("generate", "hi", "-m", model), USAGE, "--initial-peers")
    assert_one_line(nectar("node", "-m", model, "-p", "somewhere"), USAGE, "/ip4/HOST/tcp/PORT/p2p/PEER")
    assert_one_line(nectar("node", "-m", model, "--blocks", "5:99"), FAULTY, "0:8")
    assert_one_line(nectar("node", "-m", model, "--device", "cuda:99"), FAULTY, "CUDA")
    assert_one_line(nectar("node", "-m", model, "--profile", "int3"), FAULTY, "nf4")
    assert_one_line(nectar("node", "-m", model, "--allowed-peers", "nobody"), USAGE, "nobody")
    assert_one_line(
        nectar("generate", "hi", "-m", model, "-p", NOBODY, "--trusted-peer", "nobody"),
        USAGE,
        "--trusted-peer",
        "nobody",
    )
    assert_one_line(nectar("nonsense"), USAGE, "nonsense")


def test_errors_are_json_with_json(nectar: Nectar) -> None:
    done = nectar("node", "-m", "./nowhere", "--json")
    assert json.loads(done.stdout)["exit_code"] == done.returncode == FAULTY
    done = nectar("node", "-m", "./nowhere", NECTAR_JSON="1")
    assert json.loads(done.stdout)["exit_code"] == done.returncode == FAULTY


def test_a_bare_nectar_shows_its_help(nectar: Nectar) -> None:
    done = nectar()
    assert done.returncode == USAGE
    assert "generate" in done.stderr


def test_join_leaves_the_rest_of_the_settings_as_they_were(tmp_path: Path) -> None:
    from nectar.cli.settings import write_setting

    settings = tmp_path / "nectar.toml"
    settings.write_text('# mine\ninitial_peers = [\n  "old",\n]\n\n[node]\nmodel = "m"  # kept\n')
    write_setting(settings, "initial_peers", ["new"])
    text = settings.read_text()
    assert '"new"' in text
    assert "old" not in text
    assert text.startswith("# mine")
    assert 'model = "m"  # kept' in text


@pytest.mark.slow  # many processes, each of which imports PyTorch
def test_nectar_toml_and_the_environment_set_options_and_unknown_settings_are_refused(
    nectar: Nectar, tmp_path: Path
) -> None:
    settings = tmp_path / "nectar.toml"
    settings.write_text(f'initial_peers = ["{NOBODY}"]\n[node]\nmodel = "./from-file"\n')
    assert_one_line(nectar("node"), FAULTY, "./from-file")
    assert_one_line(nectar("node", NECTAR_MODEL="./from-environment"), FAULTY, "./from-environment")
    assert_one_line(nectar("node", "-m", "./from-flag", NECTAR_MODEL="./from-environment"), FAULTY, "./from-flag")
    assert_one_line(nectar("swarm"), UNREACHABLE, "reached")
    settings.write_text("colour = 1\n")
    assert_one_line(nectar("key"), USAGE, "colour")
    settings.write_text('key = "a.key"\n[swarm.init]\nport = 31444\n')
    assert ":31444/" in nectar("swarm", "init", "--host", "127.0.0.1").stdout.replace("/tcp/", ":")
    settings.write_text("[nodes]\nmodel = 1\n")
    assert_one_line(nectar("key"), USAGE, "[nodes]")
    settings.write_text("[node]\ncolour = 1\n")
    assert_one_line(nectar("key"), USAGE, "colour")
    settings.write_text("not toml")
    assert_one_line(nectar("key"), USAGE, "nectar.toml")


def test_swarm_init_writes_its_address_and_prints_the_line_to_join(nectar: Nectar, tmp_path: Path) -> None:
    done = nectar("swarm", "init", "--host", "127.0.0.1", "--port", "31339")
    assert done.returncode == 0, done.stderr
    address = done.stdout.strip().removeprefix("nectar swarm join ")
    assert address.startswith("/ip4/127.0.0.1/tcp/31339/p2p/12D3KooW")
    assert address in (tmp_path / "nectar.toml").read_text()


def test_windows_is_refused_with_a_line_about_wsl2(monkeypatch: pytest.MonkeyPatch) -> None:
    from nectar.cli import main

    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit, match="WSL2"):
        main.run()


def test_a_private_node_needs_peers_that_relay_for_it(nectar: Nectar) -> None:
    private = ("node", "-m", "x", "--reachability", "private")
    told = nectar(*private)
    assert told.returncode == USAGE
    assert "--initial-peers" in told.stderr
    told = nectar(*private, "-p", NOBODY, "--announce", "/ip4/192.0.2.1/tcp/1")
    assert told.returncode == USAGE
    assert "--announce" in told.stderr
