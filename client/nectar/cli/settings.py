"""Where a setting comes from: a flag, else NECTAR_… in the environment, else nectar.toml, else its default.

nectar.toml is looked for in the present folder, then in the user's configuration folder; NECTAR_CONFIG names another.
Keys outside a table hold for every command that has such an option; a table named like a command holds for it alone.
"""

import os
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

FILE_NAME = "nectar.toml"


def option(*names: str, **attributes: Any) -> Callable[[Any], Any]:
    """A click option that can also be set by NECTAR_ and its name."""
    long = next(name for name in names if name.startswith("--"))
    variable = "NECTAR_" + long.removeprefix("--").partition("/")[0].replace("-", "_").upper()
    return click.option(*names, envvar=variable, show_envvar=True, **attributes)


def data_folder() -> Path:
    """Where keys live: $NECTAR_HOME, or nectar in the user's data folder."""
    if folder := os.environ.get("NECTAR_HOME"):
        return Path(folder)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "nectar"


def config_file() -> Path | None:
    """The nectar.toml that counts, if there is one."""
    if named := os.environ.get("NECTAR_CONFIG"):
        return Path(named)
    user = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "nectar" / FILE_NAME
    return next((path for path in (Path(FILE_NAME), user) if path.is_file()), None)


def read_config(path: Path) -> dict[str, Any]:
    """The file's contents. Raises click.ClickException for what is not TOML."""
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{path}: {error}") from error


def default_map(group: click.Group) -> dict[str, Any]:
    """nectar.toml in the form in which click takes defaults. Raises click.UsageError for a key no command knows."""
    path = config_file()
    if path is None:
        return {}
    config = read_config(path)
    shared = {key: value for key, value in config.items() if not isinstance(value, dict)}
    known = {name: {parameter.name for parameter in command.params} for name, command in _commands(group)}
    for key in shared:
        if not any(key in names for names in known.values()):
            raise click.UsageError(f"{path}: no command has a setting {key!r}")
    result: dict[str, Any] = {}
    for name, names in known.items():
        own = config.get(name, {})
        if unknown := set(own) - {*names, *group_names(group, name)}:
            raise click.UsageError(f"{path}: `nectar {name}` has no setting {sorted(unknown)[0]!r}")
        result[name] = {key: value for key, value in {**shared, **own}.items() if key in names}
    return result


def group_names(group: click.Group, name: str) -> set[str]:
    command = group.commands.get(name)
    return set(command.commands) if isinstance(command, click.Group) else set()


def _commands(group: click.Group) -> Iterator[tuple[str, click.Command]]:
    yield from group.commands.items()


def write_setting(path: Path, key: str, values: list[str]) -> None:
    """Set one list of strings outside the tables of a nectar.toml, and leave everything else as it stands."""
    line = f"{key} = [{', '.join(_quoted(value) for value in values)}]"
    lines = path.read_text().splitlines() if path.is_file() else []
    first_table = next((at for at, text in enumerate(lines) if text.lstrip().startswith("[")), len(lines))
    present = next((at for at, text in enumerate(lines[:first_table]) if text.split("=")[0].strip() == key), None)
    if present is None:
        lines.insert(0, line)
    else:
        lines[present] = line
    text = "\n".join(lines) + "\n"
    tomllib.loads(text)  # never leave behind a file that cannot be read
    path.write_text(text)


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
