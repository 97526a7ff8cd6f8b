"""What BentoML leaves to do: a bento's arguments, how long a connection may be idle.

A bento drops `bentoml serve`'s arguments (bentoml/_internal/service/loader.py, `_load_bento`), so
they are read from the command line, and handed on to the workers in the environment.
"""

import argparse
import inspect
import json
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bentoml
import uvicorn
import yaml  # type: ignore[import-untyped]
from bentoml.exceptions import BentoMLConfigException

from emulator import settings

ARGUMENTS_VARIABLE = "OPENAI_EMULATOR_ARGUMENTS"
# BentoML's own option is in a worker's command line if the operator has given it.
KEEP_ALIVE_OPTION = "--timeout-keep-alive"

logger = logging.getLogger("bentoml.openai_emulator")


def read_settings() -> settings.Settings:
    """Return what the operator has set.

    Raises:
        BentoMLConfigException: A value is wrong, or a name is no setting's.
    """
    try:
        return settings.read_settings(_given(), _known_to_bentoml())
    except settings.SettingsError as error:
        raise BentoMLConfigException(str(error)) from None


def worker_number() -> int | None:
    """Return which worker this process is, from 1; none if it is the one that starts them."""
    try:
        return bentoml.server_context.worker_index
    except AttributeError:
        _warn("bentoml", "server_context.worker_index")
        return 1 if ARGUMENTS_VARIABLE in os.environ else None


def keep_connections(idle_s: float) -> None:
    """Let the connections of this worker be idle for so long between two requests.

    A worker makes uvicorn's configuration after it has imported the service, with 5 s.
    """
    if worker_number() is None or any(word.startswith(KEEP_ALIVE_OPTION) for word in sys.argv):
        return
    original = getattr(uvicorn, "Config", None)
    if original is None or "timeout_keep_alive" not in inspect.signature(original).parameters:
        _warn("uvicorn", "Config(timeout_keep_alive=...)")
        return

    class Config(original):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - uvicorn's own
            super().__init__(*args, **{**kwargs, "timeout_keep_alive": idle_s})

    uvicorn.Config = Config  # type: ignore[misc]


def _given() -> dict[str, Any]:
    """Return the arguments of the command line that started the server."""
    if worker_number() is None:
        given = _parse(sys.argv[1:])
        os.environ[ARGUMENTS_VARIABLE] = json.dumps(given, default=str)
        return given
    handed = os.environ.get(ARGUMENTS_VARIABLE)
    if handed is None:
        _warn("bentoml", "the environment of the process that starts the workers")
        return {}
    return dict(json.loads(handed))


def _known_to_bentoml() -> dict[str, Any]:
    """Return the arguments that BentoML has for the service: from a bento those of its build."""
    try:
        return vars(bentoml.use_arguments())
    except AttributeError:
        _warn("bentoml", "use_arguments()")
        return {}


def _parse(words: Sequence[str]) -> dict[str, Any]:
    """Return the arguments in a command line of BentoML's, which has checked their form.

    Raises:
        SettingsError: A file of arguments is not found: BentoML imports a bento from its folder.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--arg", action="append", default=[])
    parser.add_argument("--arg-file", type=Path)
    found, _ = parser.parse_known_args(words)
    try:
        from_file = yaml.safe_load(found.arg_file.read_text()) if found.arg_file else {}
    except FileNotFoundError:
        raise settings.SettingsError(
            f"--arg-file {found.arg_file}: not found in {Path.cwd()}; give its whole path"
        ) from None
    return {**from_file, **dict(pair.partition("=")[::2] for pair in found.arg)}


def _warn(package: str, missing: str) -> None:
    logger.warning(
        "%s %s has no %s: settings given with --arg may not count, those of the environment do",
        package,
        version(package),
        missing,
    )
