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
import tomlkit

FILE_NAME = "nectar.toml"


def option(*names: str, **attributes: Any) -> Callable[[Any], Any]:
    """A click option that can also be set by NECTAR_ and its name."""
    long = next(name for name in names if name.startswith("--"))
    variable = "NECTAR_" + long.removeprefix("--").partition("/")[0].replace("-", "_").upper()
    return click.option(*names, envvar=variable, show_envvar=True, **attributes)


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
    """nectar.toml in the form in which click takes defaults. Raises click.UsageError for what no command knows."""
    path = config_file()
    if path is None:
        return {}
    config = read_config(path)
    shared = {key: value for key, value in config.items() if not isinstance(value, dict)}
    tables = {key: value for key, value in config.items() if isinstance(value, dict)}
    for key in shared:
        if not any(key in _options(command) for command in _all_commands(group)):
            raise click.UsageError(f"{path}: no command has a setting {key!r}")
    if unknown := set(tables) - set(group.commands):
        raise click.UsageError(f"{path}: there is no command for the table [{min(unknown)}]")
    return {
        name: _defaults(command, shared, tables.get(name, {}), f"{path}: [{name}]")
        for name, command in group.commands.items()
    }


def _defaults(command: click.Command, shared: dict[str, Any], own: dict[str, Any], where: str) -> dict[str, Any]:
    """One command's defaults, by its parameters' names, and those of its subcommands."""
    options = _options(command)
    commands = command.commands if isinstance(command, click.Group) else {}
    result: dict[str, Any] = {options[key]: value for key, value in shared.items() if key in options}
    for key, value in own.items():
        if key in commands and isinstance(value, dict):
            continue
        if key not in options:
            raise click.UsageError(f"{where} has no setting {key!r}")
        result[options[key]] = value
    for name, subcommand in commands.items():
        inner = own.get(name, {})
        result[name] = _defaults(subcommand, shared, inner if isinstance(inner, dict) else {}, f"{where}.[{name}]")
    return result


def _options(command: click.Command) -> dict[str, str]:
    """{a setting's name in the file: its parameter's name}: long options with underscores."""
    return {
        option.removeprefix("--").replace("-", "_"): parameter.name or ""
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in parameter.opts
        if option.startswith("--")
    }


def _all_commands(group: click.Group) -> Iterator[click.Command]:
    for command in group.commands.values():
        yield command
        if isinstance(command, click.Group):
            yield from _all_commands(command)


def write_setting(path: Path, key: str, values: list[str]) -> None:
    """Set one list of strings outside the tables of a nectar.toml, and leave everything else as it stands.

    Raises click.UsageError for a file that is not TOML.
    """
    try:
        document = tomlkit.parse(path.read_text()) if path.is_file() else tomlkit.document()
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{path}: {error}") from error
    document[key] = values
    path.write_text(tomlkit.dumps(document))
