"""The command ``openai-api-emulator``: the settings as options, then ``bentoml serve``."""

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from openai_api_emulator.running.installed import service_folder


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Do what a command line says."""
    folder = str(service_folder())
    sys.path.insert(0, folder)
    from openai_api_emulator.running.options import OptionsError, launch, parse  # noqa: PLC0415 - of there

    try:
        words, variables = launch(parse(arguments), os.environ)
    except OptionsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    os.environ.update(variables)
    # Python looks there first, so that no module of the caller's folder is in the service's way.
    os.chdir(folder)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *words])  # noqa: S606 - our own command line
