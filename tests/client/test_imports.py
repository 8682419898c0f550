"""Each part needs no more than its extra brings, and `import nectar` is cheap."""

import json
import os
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement

DISTRIBUTION = "nectar-swarm"
OWN = {
    "nectar_protocol", "nectar_swarm", "nectar_node", "nectar", "nectar_demo", "nectar_ledger", "nectar_ledger_client",
}  # fmt: skip
PARTS = {  # of each extra
    "client": ("nectar", "nectar_ledger_client", "nectar_swarm", "nectar_protocol"),
    "node": ("nectar_node", "nectar_ledger_client", "nectar_swarm", "nectar_protocol"),
    "ledger": ("nectar_ledger", "nectar_ledger_client", "nectar_protocol"),
}
NO_MODULES = "migrations"  # run by Alembic, not imported
NOBODY = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf"
HEAVY = frozenset({"torch", "transformers", "hivemind", "bitsandbytes", "accelerate"})

# Hides every top-level module that is not the standard library's, ours or of the allowed distributions, as if it were
# not installed.
HIDER = """
import importlib, json, os, sys
known = {*sys.stdlib_module_names, *json.loads(os.environ["ALLOWED"]), "__main__"}

class Hider:
    def __init__(self, finders):
        self.finders = finders

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in known or name.startswith("_sysconfigdata"):
            found = (finder.find_spec(name, path, target) for finder in self.finders)
            return next((spec for spec in found if spec is not None), None)

    def find_distributions(self, *arguments):
        for finder in self.finders:
            yield from getattr(finder, "find_distributions", lambda *_: ())(*arguments)

    def invalidate_caches(self):
        pass

for name in [name for name in sys.modules if name.partition(".")[0] not in known]:
    del sys.modules[name]
sys.meta_path[:] = [Hider(sys.meta_path[:])]
"""
IMPORT = HIDER + "for name in sys.argv[1:]: importlib.import_module(name)\n"
COMMAND = HIDER + "sys.argv[0] = 'nectar'\nfrom nectar.cli.main import run\nrun()\n"
LOADED = "import json, sys, {module}; print(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def closure(extra: str) -> frozenset[str]:
    """The distributions that installing `nectar-swarm[extra]` brings, of those that are here."""
    found: set[str] = set()

    def visit(name: str, extras: frozenset[str]) -> None:
        try:
            requirements = distribution(name).requires or []
        except PackageNotFoundError:  # for another platform
            return
        for requirement in map(Requirement, requirements):
            marker = requirement.marker
            if marker and not any(marker.evaluate({"extra": one}) for one in extras or {""}):
                continue
            one = normal(requirement.name)
            if one not in found:
                found.add(one)
                visit(one, frozenset(requirement.extras))

    visit(DISTRIBUTION, frozenset({extra}))
    return frozenset(found)


@cache
def modules_of(extra: str) -> frozenset[str]:
    names = {
        module
        for module, homes in packages_distributions().items()
        if closure(extra) & {normal(home) for home in homes}
    }
    return frozenset(names | OWN)


def run_python(
    script: str, *arguments: str, extra: str, home: Path, without: frozenset[str] = frozenset()
) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NECTAR_")}
    environment |= {"ALLOWED": json.dumps(sorted(modules_of(extra) - without)), "NECTAR_HOME": str(home)}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=False)


def modules_in(package: str) -> list[str]:
    """All modules of one of our packages, by their files."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    root = Path(next(iter(spec.submodule_search_locations)))
    paths = [path.relative_to(root.parent).with_suffix("") for path in root.rglob("*.py")]
    return sorted(
        ".".join(path.parts)
        for path in paths
        if path.name not in ("__init__", "__main__") and NO_MODULES not in path.parts
    )


@pytest.mark.parametrize("module", ["nectar", "nectar.errors", "nectar.cli.main"])
def test_importing_nectar_loads_neither_torch_nor_transformers(module: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LOADED.format(module=module)], capture_output=True, text=True, check=True
    )
    assert not HEAVY & set(json.loads(ran.stdout))


def test_names_of_the_package_are_found_when_they_are_used() -> None:
    import nectar

    assert set(nectar.__all__) <= set(dir(nectar))
    assert nectar.NoRouteError.__module__ == "nectar.errors"
    with pytest.raises(AttributeError, match="no attribute 'Honey'"):
        _ = nectar.Honey


@pytest.mark.parametrize(("extra", "module"), [("client", "psutil"), ("node", "pytest"), ("", "torch")])
def test_what_an_extra_does_not_bring_is_hidden(extra: str, module: str, tmp_path: Path) -> None:
    ran = run_python(IMPORT, module, extra=extra, home=tmp_path)
    assert f"No module named '{module}'" in ran.stderr


@pytest.mark.parametrize("extra", PARTS)
def test_a_part_imports_with_its_extra_alone(extra: str, tmp_path: Path) -> None:
    modules = [name for part in PARTS[extra] for name in modules_in(part)]
    ran = run_python(IMPORT, *modules, extra=extra, home=tmp_path)
    assert ran.returncode == 0, ran.stderr[-2000:]


def test_the_base_has_the_protocol_and_the_commands_shell(tmp_path: Path) -> None:
    shell = [name for name in modules_in("nectar") if name.startswith("nectar.cli.")]
    ran = run_python(IMPORT, *modules_in("nectar_protocol"), *shell, extra="", home=tmp_path)
    assert ran.returncode == 0, ran.stderr[-2000:]


def test_help_needs_the_base_alone(tmp_path: Path) -> None:
    ran = run_python(COMMAND, "--help", extra="", home=tmp_path)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "Usage: nectar" in ran.stdout
    for command in ("node", "generate", "swarm", "demo", "ledger", "wallet"):
        ran = run_python(COMMAND, command, "--help", extra="", home=tmp_path)
        assert ran.returncode == 0, ran.stderr[-2000:]


def test_a_key_is_made_with_the_base_alone(tmp_path: Path) -> None:
    ran = run_python(COMMAND, "key", "--json", extra="", home=tmp_path)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert json.loads(ran.stdout)["peer"].startswith("12D3KooW")


@pytest.mark.parametrize(
    ("extra", "arguments", "wanted"),
    [
        ("", ("init", "ledger.example/test"), "nectar-swarm[ledger]"),
        ("ledger", ("model", "add", "./nowhere"), "nectar-swarm[client,ledger]"),
    ],
)
def test_a_ledger_says_which_extra_it_lacks(
    extra: str, arguments: tuple[str, ...], wanted: str, tmp_path: Path
) -> None:
    ran = run_python(COMMAND, "ledger", *arguments, extra=extra, home=tmp_path)
    assert ran.returncode == 3
    assert wanted in ran.stderr


def test_a_ledger_is_made_and_verified_with_its_extra_alone(tmp_path: Path) -> None:
    for arguments in (("init", "ledger.example/test"), ("verify",)):
        ran = run_python(COMMAND, "ledger", *arguments, extra="ledger", home=tmp_path)
        assert ran.returncode == 0, ran.stderr[-2000:]


@pytest.mark.parametrize("command", [("node",), ("generate", "hi", "-p", NOBODY)], ids=lambda command: command[0])
def test_a_wrong_model_is_told_before_anything_heavy_is_imported(command: tuple[str, ...], tmp_path: Path) -> None:
    ran = run_python(COMMAND, *command, "-m", "./nowhere", extra="client", home=tmp_path, without=HEAVY)
    assert "there is no folder ./nowhere" in ran.stderr
