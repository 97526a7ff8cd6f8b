"""Runs ``bentoml serve`` in forks of a process that has imported all that it needs.

`python -m tests.support.servers.starter` reads a line of JSON for each start and answers with a
line: the exit code and the output. To import BentoML and the service takes a second, a fork none.
"""

import contextlib
import importlib
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

SERVICE = "service"


def serve(arguments: Sequence[str], environment: Mapping[str, str], output: int) -> None:
    """Become ``bentoml serve``; `output` is the descriptor of what it is to write to."""
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["bentoml", *arguments]
    importlib.import_module("bentoml_cli.cli").cli()


def outcome(arguments: Sequence[str], environment: Mapping[str, str], timeout_s: int) -> list[Any]:
    """Run ``bentoml serve`` to its end; return its exit code and what it wrote."""
    with tempfile.TemporaryFile() as output:
        pid = os.fork()
        if not pid:
            code = 70
            try:
                signal.alarm(timeout_s)
                serve(arguments, environment, output.fileno())
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            except BaseException:  # noqa: BLE001 - as an interpreter of its own tells it
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # what a start that should have failed has started
        output.seek(0)
        return [os.waitstatus_to_exitcode(status), output.read().decode()]


def main() -> None:
    """Answer until there are no more lines."""
    for module in ("bentoml_cli.cli", "bentoml.serving", SERVICE):
        importlib.import_module(module)
    del sys.modules[SERVICE]  # each start runs it with settings of its own
    for line in sys.stdin:
        print(json.dumps(outcome(*json.loads(line))), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
