"""Prints what clients make of each kind of failure: ``python -m benchmarks.failures``.

Each client asks a running emulator for every kind, streamed and whole, with `TOKENS` tokens of
which `AFTER` come before the failure. How often it tried is counted by the emulator.
"""

import argparse
import csv
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import openai

from emulator.faults.kinds import KINDS, Kind
from tests.support.server import REPOSITORY, Server, clean_environment, eventually, running_server
from tests.support.wire import CHAT_PATH, chat, headers

TOKENS, AFTER = 8, 3
RETRY_AFTER_MS = 300
TIMEOUT_S = 1.0
NODE_PATIENCE_S = 10.0
SUCCESS = "success"
NODE_CLIENT = Path(__file__).parent / "kit" / "failures_client.cjs"
LOAD_KIT_S = 4


@dataclass(frozen=True)
class Outcome:
    """What became of one request in a client.

    ``error`` says what it raised, None if it took the answer for a good one. ``tries`` is None
    where the emulator has to count them.
    """

    error: str | None
    status: int | None = None
    tokens: int | None = None
    tries: int | None = None
    took_s: float = 0.0

    def told(self, kind: Kind) -> str:
        """Return it in words; what was lost or broken and raised nothing is called a success."""
        is_whole = kind.name == "slice" and self.tokens in (TOKENS, None)
        words = self.error or ("all is there" if is_whole else SUCCESS)
        if self.status:
            words += f" {self.status}"
        if self.tokens is not None and not is_whole and (self.tokens or not self.error):
            words += f", {self.tokens} of {TOKENS} tokens"
        if self.tries and self.tries > 1:
            words += f", {self.tries} tries in {self.took_s:.1f} s"
        return words


Ask = Callable[[Kind, bool], Outcome]


def asked_for(kind: Kind) -> dict[str, str]:
    """Return the headers that ask for a failure of this kind."""
    asked = headers(20, 10, TOKENS) | {"X-FAULT-KIND": kind.name}
    if "after_tokens" in kind.options and not kind.refuses(stream=True):
        asked["X-FAULT-AFTER-TOKENS"] = str(AFTER)
    if "status" in kind.options:
        asked |= {"X-FAULT-STATUS": "429", "X-FAULT-RETRY-AFTER-MS": str(RETRY_AFTER_MS)}
    return asked


def tokens_in(text: str) -> int:
    """Return the tokens of a text of the emulator, each of which but full stops is a word."""
    return len(text.replace(".", " .").replace(",", " ,").split())


def named(error: BaseException) -> str:
    """Return an exception's name, and that of what it was raised for if it is another."""
    names = [type(error).__name__]
    if error.__cause__ is not None and type(error.__cause__).__name__ not in names:
        names.append(type(error.__cause__).__name__)
    return " of ".join(f"`{name}`" for name in names)


# --------------------------------------------------------------------------------------
# Clients
# --------------------------------------------------------------------------------------


def openai_python(url: str, kind: Kind, streamed: bool) -> Outcome:
    """Ask with OpenAI's client for Python, with its own retries."""
    text = ""
    client = openai.OpenAI(api_key="k", base_url=f"{url}/v1", timeout=TIMEOUT_S)
    create: Any = client.chat.completions.create
    try:
        answer = create(**chat(stream=streamed), extra_headers=asked_for(kind))
        if not streamed:
            text = answer.choices[0].message.content
        else:
            for chunk in answer:
                text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
    except Exception as error:  # noqa: BLE001 - whatever it raises is what is told
        return Outcome(named(error), getattr(error, "status_code", None), tokens_in(text))
    finally:
        client.close()
    return Outcome(None, None, tokens_in(text))


def openai_node(folder: Path, url: str, kind: Kind, streamed: bool) -> Outcome:
    """Ask with OpenAI's client for Node, with its own retries."""
    asked = json.dumps(asked_for(kind))
    limits_ms = [str(int(seconds * 1000)) for seconds in (TIMEOUT_S, NODE_PATIENCE_S)]
    arguments = [str(folder), f"{url}/v1", str(streamed).lower(), asked, *limits_ms]
    ended = subprocess.run(
        ["node", str(NODE_CLIENT), *arguments],  # noqa: S607 - on the path
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    told = json.loads(ended.stdout)
    error = told["error"] and f"`{told['error']}`"
    if told["waits"]:
        error = f"still waits after {NODE_PATIENCE_S:g} s"
    return Outcome(error, told["status"], tokens_in(told["text"]))


def httpx_sse(url: str, kind: Kind, streamed: bool) -> Outcome:
    """Read a stream with httpx-sse until [DONE], and each event's JSON as a client would."""
    from httpx_sse import connect_sse  # noqa: PLC0415 - not everybody has it

    text = ""
    body = chat(stream=streamed)
    try:
        with (
            httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client,
            connect_sse(
                client, "POST", url + CHAT_PATH, json=body, headers=asked_for(kind)
            ) as source,
        ):
            source.response.raise_for_status()
            for event in source.iter_sse():
                if event.data == "[DONE]":
                    break
                choices = json.loads(event.data).get("choices") or [{}]
                text += choices[0].get("delta", {}).get("content") or ""
    except httpx.HTTPStatusError as error:
        return Outcome(named(error), error.response.status_code, tokens_in(text))
    except Exception as error:  # noqa: BLE001 - whatever it raises is what is told
        return Outcome(named(error), None, tokens_in(text))
    return Outcome(None, None, tokens_in(text))


def load_kit(locustfile: Path, url: str, kind: Kind, streamed: bool) -> Outcome:
    """Run one user of the load kit, and return the name that it gives to the failure."""
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, object] = {
            "--headless": "ShortChatUser",
            "--users": 1,
            "--run-time": f"{LOAD_KIT_S}s",
            "--host": url,
            "--csv": f"{folder}/run",
            "--stream-ratio": int(streamed),
            "--ttft-ms": 20,
            "--itl-ms": 10,
            "--output-length": TOKENS,
            "--silence-s": TIMEOUT_S,
            "--fault-kind": kind.name,
        }
        if "after_tokens" in kind.options and not kind.refuses(stream=True):
            options["--fault-after-tokens"] = AFTER
        words = [str(word) for pair in options.items() for word in pair]
        ended = subprocess.run(
            [sys.executable, "-m", "locust", "-f", str(locustfile), *words],
            cwd=locustfile.parent,
            env=clean_environment(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        figures = Path(folder, "run_failures.csv")
        if not figures.exists():
            raise RuntimeError(f"the load kit did not run:\n{ended.stderr.decode()}")
        with figures.open() as file:
            failures = [row["Error"] for row in csv.DictReader(file)]
    # Locust writes the exception around the name.
    told = re.sub(r"^\w+\('(.*)'\)$", r"\1", failures[0]) if failures else None
    return Outcome(told, tries=1)


# --------------------------------------------------------------------------------------
# The tables
# --------------------------------------------------------------------------------------


def tries(server: Server) -> float:
    """Return how often the emulator has failed so far."""
    return server.metrics().total("openai_emulator_faults_total")


def ask(server: Server, client: Ask, kind: Kind, streamed: bool) -> Outcome:
    """Let a client ask for a kind, and return what became of it and how often it tried."""
    before, start_s = tries(server), time.monotonic()
    outcome = client(kind, streamed)
    took_s = time.monotonic() - start_s
    if outcome.tries is not None:
        return outcome
    eventually(lambda: tries(server) > before)
    time.sleep(0.1)  # two of the intervals at which metrics are handed over
    return replace(outcome, took_s=took_s, tries=int(tries(server) - before))


def table(server: Server, clients: Mapping[str, Ask], streamed: bool) -> list[str]:
    """Return the rows of a table in Markdown: what each client makes of each kind."""
    lines = [f"| kind | {' | '.join(clients)} |", "|---" * (len(clients) + 1) + "|"]
    for kind in KINDS.values():
        if kind.fits(stream=streamed, says_failed=False):  # chats do not
            cells = [
                ask(server, client, kind, streamed).told(kind).strip()
                for client in clients.values()
            ]
            lines.append(f"| `{kind.name}` | {' | '.join(cells)} |")
    return lines


def clients_here(url: str, node_modules: Path | None, locustfile: Path) -> dict[str, Ask]:
    """Return the clients of this machine, by the heads of their columns."""
    clients: dict[str, Ask] = {f"openai {version('openai')} (Python)": partial(openai_python, url)}
    package = node_modules and node_modules / "node_modules" / "openai" / "package.json"
    if package and package.is_file() and shutil.which("node"):
        number = json.loads(package.read_text())["version"]
        clients[f"openai {number} (Node)"] = partial(openai_node, package.parents[2], url)
    if find_spec("httpx_sse"):
        clients[f"httpx-sse {version('httpx-sse')}"] = partial(httpx_sse, url)
    clients["the load kit"] = partial(load_kit, locustfile, url)
    return clients


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--node", type=Path, help="folder in which `npm install openai` was run; without it no Node"
    )
    parser.add_argument(
        "--locustfile", type=Path, default=REPOSITORY / "locustfile.py", help="the load kit"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    """Print both tables."""
    options = parse(arguments)
    with ExitStack() as stack:
        server = stack.enter_context(running_server("--arg", "workers=1"))
        clients = clients_here(server.url, options.node, options.locustfile.resolve())
        for title, streamed in (("Streams", True), ("Whole answers", False)):
            if not streamed:
                clients = {name: client for name, client in clients.items() if "sse" not in name}
            print(f"{title}\n\n" + "\n".join(table(server, clients, streamed)) + "\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
