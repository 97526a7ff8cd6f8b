"""The options of ``openai-api-emulator serve``, made of the service's own settings.

Imports from the service's folder, which has to be where Python looks.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from emulator.settings import PREFIX, SECRETS, ConfigError, Settings, read_settings

HOST = "127.0.0.1"
PORT = 3000
_ENGINE_FILES = (".yaml", ".yml")
_FIELDS: Mapping[str, FieldInfo] = Settings.model_fields


class OptionsError(ValueError):
    """The server cannot be started so; the message says why."""


def parse(arguments: Sequence[str] | None) -> dict[str, Any]:
    """Return what a command line gives: host, port and settings, by name.

    Raises:
        OptionsError: An option is none.
    """
    given, unknown = _parser().parse_known_args(arguments)
    if unknown:
        named = unknown[0].partition("=")[0]
        known = ["--host", "--port", *map(_option, _FIELDS)]
        (nearest,) = get_close_matches(named, known, n=1, cutoff=0)
        raise OptionsError(f"{unknown[0]}: there is no such option; the nearest is {nearest}")
    return vars(given)


def launch(
    given: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Return Python's arguments that run the server, and the variables to set for it.

    Args:
        given: What `parse` returned.
        environment: The variables that there are.

    Raises:
        OptionsError: A setting is wrong; the message is the settings' own.
    """
    arguments = {n: _whole_path(n, value) for n, value in given.items() if n in _FIELDS}
    variables = {
        _variable(name): _whole_path(name, environment[_variable(name)])
        for name in _FIELDS
        if environment.get(_variable(name))
    }
    try:
        read_settings(arguments, written=lambda name: f"{_option(name)}=")
    except ConfigError as error:
        raise OptionsError(str(error)) from None
    for name in SECRETS & arguments.keys():  # anybody can read a command line
        variables[_variable(name)] = arguments.pop(name)
    variables["BENTOML_DO_NOT_TRACK"] = environment.get("BENTOML_DO_NOT_TRACK", "True")
    variables["BENTOML_HOME"] = environment.get("BENTOML_HOME") or _home(environment, given["port"])
    words = ["-m", "bentoml", "serve", "service.py:OpenAIEmulator"]
    words += ["--host", given["host"], "--port", str(given["port"])]
    words += [word for name, value in arguments.items() for word in ("--arg", f"{name}={value}")]
    return words, variables


def _whole_path(name: str, value: str) -> str:
    """Return the whole path of a file, which the service would look for from its own folder."""
    kinds = _kinds(_FIELDS[name].annotation)
    is_file = value.endswith(_ENGINE_FILES) if name == "engine" else Path in kinds
    return str(Path(value).expanduser().absolute()) if is_file else value


def _home(environment: Mapping[str, str], port: int) -> str:
    """Return a home of BentoML's for a port: servers that share one empty each other's metrics.

    Raises:
        OptionsError: It cannot be made.
    """
    cache = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = cache / "openai-api-emulator" / f"port-{port}"
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionsError(f"{error}: set BENTOML_HOME to a folder that can be written") from None
    return str(home)


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


# --------------------------------------------------------------------------------------
# The parser
# --------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "openai-api-emulator", description="An OpenAI endpoint with no model behind it."
    )
    parser.add_argument("--version", action="version", version=_version())
    serve = parser.add_subparsers(required=True, metavar="serve").add_parser(
        "serve",
        help="run the server",
        description="Run the server with `bentoml serve`. A setting can also be given in the "
        "environment, --ttft-ms as EMULATOR_TTFT_MS. Relative paths start at the current folder.",
        usage="%(prog)s [--host HOST] [--port PORT] [--SETTING VALUE ...]",
        formatter_class=partial(argparse.HelpFormatter, max_help_position=32),
        allow_abbrev=False,
    )
    serve.add_argument("--host", default=HOST, help=f"address to listen at ({HOST}); 0.0.0.0: all")
    serve.add_argument("--port", type=int, default=PORT, help=f"port to listen at ({PORT})")
    group = serve.add_argument_group("settings, and what counts without them")
    for name, field in _FIELDS.items():
        _add(group, name, field)
    return parser


def _add(group: argparse._ArgumentGroup, name: str, field: FieldInfo) -> None:
    kinds = set(_kinds(field.annotation))
    extra: dict[str, Any] = {"metavar": "TEXT"}
    if bool in kinds:
        extra = {"metavar": "true|false", "nargs": "?", "const": "true"}
    elif Path in kinds:
        extra = {"metavar": "PATH"}
    elif kinds & {int, float}:
        extra = {"metavar": "NUMBER"}
    elif get_origin(field.annotation) is Literal:
        extra = {"metavar": "|".join(get_args(field.annotation))}
    told = f"{field.description} ({_shown(field.default)})".replace("%", "%%")
    group.add_argument(_option(name), dest=name, default=argparse.SUPPRESS, help=told, **extra)


def _kinds(annotation: object) -> Iterator[object]:
    """Yield the types that a field takes as it stands, those in lists and tables aside."""
    if get_origin(annotation) in (Union, UnionType, Annotated):
        for each in get_args(annotation):
            yield from _kinds(each)
    else:
        yield annotation


def _shown(default: object) -> str:
    """Return a default as one would write it."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, tuple):
        return ", ".join(default)
    return "none" if default is None or default == {} else str(default)


def _version() -> str:
    try:
        return version("openai-api-emulator")
    except PackageNotFoundError:
        return "not installed: this is the repository"
