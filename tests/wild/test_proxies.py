"""Proxies of the recipes in front of an emulator: tokens pass one by one."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.documents import page
from tests.support.process import free_port
from tests.support.server import PLAIN, REPOSITORY, Server, eventually
from tests.support.wire import CHAT_PATH, chat, headers

pytestmark = pytest.mark.usefixtures("local_only")

TOKENS, TTFT_MS, ITL_MS = 20, 100, 30
TOGETHER_S = 0.005
ATTEMPTS = 3


def recipe(language: str) -> str:
    """Return the one block of the recipes that is in a proxy's language."""
    (block,) = page("docs/recipes.md").blocks(language)
    return block


def nginx_template() -> str:
    """Return nginx's configuration, for the addresses that the recipes have."""
    text = (REPOSITORY / "deploy/nginx/nginx.conf.template").read_text()
    text = text.replace("${NGINX_SERVERS}", "server localhost:3000;")
    return text.replace("${NGINX_LISTEN}", "localhost:8080")


# The command line after the program.
COMMANDS = {
    "caddy": "run --adapter caddyfile --config {file}",
    "haproxy": "-db -f {file}",
    "nginx": "-p {folder} -c {file} -e {folder}/log",
}


def configuration(name: str) -> str:
    """Return a proxy's configuration, for the addresses that the recipes have."""
    if name == "nginx":
        return f"daemon off; pid pid; error_log log;\n{nginx_template()}"
    return recipe({"caddy": "caddyfile"}.get(name, name))


def program(name: str) -> str | None:
    """Return the path of a proxy's program."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin")


@contextmanager
def running(name: str, server: Server, folder: Path) -> Iterator[str]:
    """Run a proxy in front of a server while the body runs; yield its address."""
    path, address = program(name), f"127.0.0.1:{free_port()}"
    assert path
    text = configuration(name).replace("localhost:8080", address)
    file, log = folder / "configuration", folder / "output"
    file.write_text(text.replace("localhost:3000", "{}:{}".format(*server.address)))
    words = COMMANDS[name].format(file=file, folder=folder).split()
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command line
            [path, *words], stdout=output, stderr=output, env={"HOME": str(folder)}
        )
    try:
        assert eventually(lambda: process.poll() is not None or answers(address))
        assert process.poll() is None, log.read_text()
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()


def answers(address: str) -> bool:
    """Tell whether an address answers."""
    try:
        return PLAIN.get(f"http://{address}/health").status_code == 200
    except httpx.TransportError:
        return False


def arrivals_of_a_stream(url: str) -> int:
    """Return how many times something of a stream came; what came together counts once."""
    # Caddy 2.6 cuts a stream whose head comes before it knows that it has sent the request.
    asked = headers(TTFT_MS, ITL_MS, TOKENS) | {"X-HEAD": "first-token", "Accept-Encoding": "gzip"}
    arrivals, last_s, body = 0, 0.0, b""
    with PLAIN.stream("POST", url + CHAT_PATH, json=chat(stream=True), headers=asked) as answer:
        assert "content-encoding" not in answer.headers
        for data in answer.iter_raw():
            now_s = time.monotonic()
            arrivals += now_s - last_s > TOGETHER_S
            last_s, body = now_s, body + data
    assert body.count(b'"delta":{"content":"') == TOKENS
    assert body.endswith(b"data: [DONE]\n\n")
    return arrivals


@pytest.mark.parametrize("name", COMMANDS)
def test_tokens_pass_one_by_one(server: Server, tmp_path: Path, name: str) -> None:
    """With the recipe's configuration a proxy holds no token back.

    A busy machine joins tokens now and then. A proxy that waits for more, as HAProxy does for up to
    256 ms, joins them always.
    """
    if program(name) is None:
        pytest.skip(f"{name} is not installed")
    with running(name, server, tmp_path) as url:
        assert max(arrivals_of_a_stream(url) for _ in range(ATTEMPTS)) > TOKENS * 0.7
