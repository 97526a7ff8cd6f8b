"""What the operator sets, at the start and at the end of a real server."""

import atexit
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cache
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from tests.support.cut_wire import exchange
from tests.support.raw import ended, request
from tests.support.reference import least
from tests.support.server import (
    PLAIN,
    REPOSITORY,
    START_TIMEOUT_S,
    STOP_TIMEOUT_S,
    TLS,
    Server,
    args,
    bentoml,
    clean_environment,
    running_server,
)
from tests.support.servers.ahead import shared
from tests.support.wire import CHAT_PATH, DONE, chat, headers, stream, token_count

pytestmark = pytest.mark.usefixtures("local_only")

MAX_BODY = 10_000
TIMEOUT_S = 0.5


@shared("module")
def custom(_: Path) -> AbstractContextManager[Server]:
    """Yield a server with no setting left at its default, two by variables of the environment."""
    environment = {
        "EMULATOR_ITL_MS": "12.5",
        "EMULATOR_KEEP_ALIVE_S": "1",
        "EMULATOR_TTFT_MS": "600",  # the argument wins
    }
    arguments = args(
        ttft_ms=30,
        output_length=7,
        max_output_length=300,
        models="alpha,org/beta",
        strict_models=True,
        workers=1,
        timeout_s=TIMEOUT_S,
        max_body_mb=MAX_BODY / 1_000_000,
    )
    return running_server(*arguments, env=environment)


@pytest.fixture
def http(custom: Server) -> Iterator[httpx.Client]:
    """Yield a client of the server with its own settings."""
    with httpx.Client(base_url=custom.url, timeout=300, trust_env=False, verify=TLS) as client:
        yield client


# --------------------------------------------------------------------------------------
# Each setting works
# --------------------------------------------------------------------------------------


def test_defaults_are_set(custom: Server) -> None:
    """Without headers a stream has the server's own TTFT, ITL and length."""
    answer = stream(custom.address, {"X-EMULATION-REPORT": "true"}, model="alpha")
    assert len(answer.content) == 7
    assert answer.report["ttft_ms"]["asked"] == 30
    assert answer.report["itl_ms"]["asked"] == 12.5
    assert answer.early(30, 12.5) == []


def test_headers_win(custom: Server) -> None:
    """A header wins over the setting."""
    answer = stream(custom.address, headers(ttft_ms=100, output_length=9), model="alpha")
    assert len(answer.content) == 9
    assert answer.content[0].arrival_s >= 0.100


def test_models_are_set(http: httpx.Client) -> None:
    """The model list is the operator's, in the order given."""
    assert [m["id"] for m in http.get("/v1/models").json()["data"]] == ["alpha", "org/beta"]


def test_model_with_slash(http: httpx.Client) -> None:
    """A model whose id holds a slash can be asked for."""
    assert http.get("/v1/models/org/beta").json()["id"] == "org/beta"


def test_unlisted_model_is_not_found(http: httpx.Client) -> None:
    """In strict mode a model that is not listed is a 404 when it is asked about."""
    answer = http.get("/v1/models/gpt-4")
    assert answer.status_code == 404
    assert answer.json()["error"] == {
        "message": "The model 'gpt-4' does not exist",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


def test_listed_model_is_served(http: httpx.Client) -> None:
    """In strict mode a listed model is served, in the encoding for names unknown to tiktoken."""
    answer = http.post(CHAT_PATH, json=chat(model="org/beta")).json()
    assert token_count(answer["choices"][0]["message"]["content"], "o200k_base") == 7


@pytest.mark.parametrize("flag", [True, False])
def test_unlisted_model_is_refused(http: httpx.Client, flag: object) -> None:
    """In strict mode a model that is not listed is a 404, streamed or not."""
    response = http.post(CHAT_PATH, json=chat(model="gpt-4", stream=flag))
    assert response.status_code == 404
    assert response.json()["error"] == {
        "message": "The model `gpt-4` does not exist or you do not have access to it.",
        "type": "invalid_request_error",
        "param": None,
        "code": "model_not_found",
    }


def test_too_long_whole_answer_is_refused_at_once(http: httpx.Client) -> None:
    """A whole answer longer than the timeout is a 400 that names it, not a wait of minutes."""
    response = http.post(CHAT_PATH, json=chat(model="alpha"), headers=headers(ttft_ms=500_000))
    assert response.status_code == 400
    assert "0.5 s" in response.json()["error"]["message"]


def test_long_whole_answer_is_served(http: httpx.Client) -> None:
    """A whole answer that is due before the timeout is not cut off."""
    response = http.post(CHAT_PATH, json=chat(model="alpha"), headers=headers(ttft_ms=100))
    assert response.status_code == 200


def test_stream_outlasts_the_timeout(custom: Server) -> None:
    """A stream may take longer than the timeout, which is for the first byte."""
    answer = stream(custom.address, headers(itl_ms=110, output_length=6), model="alpha")
    assert len(answer.content) == 6
    assert answer.events[-1].data == DONE
    assert answer.events[-1].arrival_s >= 0.55


def test_late_first_token_outlasts_the_timeout(custom: Server) -> None:
    """A stream's first token too may be due after the timeout: its headers leave at once."""
    answer = stream(custom.address, headers(ttft_ms=550, output_length=2), model="alpha")
    assert len(answer.content) == 2
    assert answer.content[0].arrival_s >= 0.55


def test_longest_answer_is_set(http: httpx.Client) -> None:
    """An answer of the operator's greatest length is served."""
    response = http.post(
        CHAT_PATH, json=chat(model="alpha"), headers=headers(output_length=300)
    ).json()
    assert response["usage"]["completion_tokens"] == 300


def test_longer_answer_is_refused(http: httpx.Client) -> None:
    """An answer above the operator's greatest length is a 400 that names limit and header."""
    response = http.post(CHAT_PATH, json=chat(model="alpha"), headers=headers(output_length=301))
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "X-OUTPUT-LENGTH")
    assert "300" in error["message"]


def body_of(size: int) -> bytes:
    """Return a valid request of this many bytes."""
    body = b'{"model": "alpha", "messages": [{"role": "user", "content": "%s"}]}'
    return body % (b"a" * (size - len(body) + 2))


def test_largest_body_is_served(http: httpx.Client) -> None:
    """A body of exactly the greatest size is served."""
    assert http.post(CHAT_PATH, content=body_of(MAX_BODY)).status_code == 200


def test_larger_body_is_refused(http: httpx.Client) -> None:
    """A body of one byte more is a 413 that names the limit."""
    response = http.post(CHAT_PATH, content=body_of(MAX_BODY + 1))
    assert response.status_code == 413
    assert str(MAX_BODY) in response.json()["error"]["message"]


def test_larger_chunked_body_is_refused(http: httpx.Client) -> None:
    """A body whose size is not declared is measured: at the limit it is served, above refused."""
    fitting, larger = (
        http.post(CHAT_PATH, content=iter([body_of(size)])).status_code
        for size in (MAX_BODY, MAX_BODY + 1)
    )
    assert (fitting, larger) == (200, 413)


def test_body_that_does_not_arrive_is_refused(custom: Server) -> None:
    """A client that never sends the body it has announced is told so, and let go."""
    connection = HTTPConnection(*custom.address, timeout=300)
    connection.putrequest("POST", CHAT_PATH)
    connection.putheader("Content-Length", "100")
    connection.endheaders(b"{")
    response = connection.getresponse()
    assert (response.status, response.getheader("connection")) == (408, "close")
    assert json.load(response)["error"]["code"] == "request_timeout"
    connection.close()


@pytest.mark.parametrize("is_stream", [True, False])
def test_silence_ends_with_the_timeout(custom: Server, is_stream: bool) -> None:
    """The failure stall ends with FIN, and no last chunk, when the server's timeout is over."""
    body = chat(model="alpha", stream=is_stream)
    asked = headers() | {"X-FAULT-KIND": "stall", "X-FAULT-AFTER-TOKENS": "2"}
    came = exchange(custom.address, CHAT_PATH, body, asked)
    assert came.end == "FIN"
    assert came.ended_s >= TIMEOUT_S
    assert (came.raw != b"") == is_stream
    assert came.raw == b"" or not came.is_complete


def test_idle_connection_is_closed(custom: Server) -> None:
    """A connection that is idle for longer than the setting says is closed, and no sooner."""

    def open_s() -> float:
        idle = ended(custom.address, request("GET", "/health", close=False))
        assert idle.after_s >= 1
        return idle.after_s

    assert least(open_s, below=5) < 5  # 5 s is BentoML's own


@pytest.mark.slow
def test_idle_connection_outlasts_bentomls_own_time(server: Server) -> None:
    """By default a connection that has been idle for 6 s answers the next request."""
    connection = HTTPConnection(*server.address, timeout=300)
    connection.connect()
    connection.auto_open = 0  # a connection that was closed is not made again
    for pause_s in (6, 0):
        connection.request("GET", "/health")
        assert connection.getresponse().read()
        time.sleep(pause_s)
    connection.close()


def test_workers_are_set(custom: Server) -> None:
    """As many workers start as were asked for."""
    started = re.findall(r"openai_emulator:(\d+)\] Service openai_emulator init", custom.log())
    assert started == ["1"]


# --------------------------------------------------------------------------------------
# What stops the start
# --------------------------------------------------------------------------------------


SERVE = ("serve", "service.py:OpenAIEmulator", "--port", "0")


@cache
def starter() -> "subprocess.Popen[str]":
    """Return the program that starts what fails, which ends with this process."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.servers.starter"],
        cwd=REPOSITORY,
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(process.communicate)
    return process


def failed_start(*arguments: str, **environment: str) -> str:
    """Return what ``bentoml serve`` says when it ends by itself, and not with success."""
    process = starter()
    assert process.stdin is not None
    assert process.stdout is not None
    asked = [[*SERVE, *arguments], clean_environment(environment), int(START_TIMEOUT_S)]
    process.stdin.write(json.dumps(asked) + "\n")
    process.stdin.flush()
    code, said = json.loads(process.stdout.readline())
    assert code > 0, said
    return str(said)


def test_failed_starts_are_those_of_an_operator() -> None:
    """A process of its own ends with the same words as the fork that the tests look at."""
    setting = ("--arg", "ttft_ms=-1")
    ended = subprocess.run(  # noqa: S603 - our own command line
        bentoml(*SERVE, *setting),
        cwd=REPOSITORY,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=START_TIMEOUT_S,
        check=False,
    )
    assert ended.returncode > 0
    assert ended.stdout == failed_start(*setting)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("ttft_ms=-1", "ttft_ms"),
        ("output_length=many", "output_length"),
        ("max_output_length=19", "max_output_length"),
        ("strict_models=perhaps", "strict_models"),
        ("colour=blue", "colour"),
    ],
)
def test_bad_setting_stops_the_start(setting: str, named: str) -> None:
    """A bad setting ends ``bentoml serve`` at once with a message that names it."""
    message = failed_start("--arg", setting)
    assert named in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("EMULATOR_TTFT_MS", "-1", "EMULATOR_TTFT_MS=-1: Input should be"),
        ("EMULATOR_WORKERS", "many", "EMULATOR_WORKERS=many: Input should be"),
        ("EMULATOR_KEEP_ALIVES", "1", "the nearest is EMULATOR_KEEP_ALIVE_S"),
    ],
)
def test_bad_variable_stops_the_start(name: str, value: str, said: str) -> None:
    """A bad variable of the environment ends ``bentoml serve`` with a message that names it."""
    message = failed_start(**{name: value})
    assert said in " ".join(message.split())
    assert "Traceback" not in message


def test_bad_trace_stops_the_start(tmp_path: Path) -> None:
    """A trace that holds no gaps ends ``bentoml serve`` with a message that names file and line."""
    (tmp_path / "good.csv").write_text("10\n20\n")
    (tmp_path / "measured.csv").write_text("10\ngap\n")
    message = failed_start("--arg", f"traces={tmp_path}")
    assert f"{tmp_path / 'measured.csv'}:2: expected a gap in ms" in " ".join(message.split("\n"))
    assert "Traceback" not in message


def test_missing_traces_stop_the_start(tmp_path: Path) -> None:
    """A folder of traces that is not there ends ``bentoml serve`` with a message that names it."""
    message = failed_start("--arg", f"traces={tmp_path / 'absent'}")
    assert "traces" in message
    assert str(tmp_path / "absent") in message
    assert "Traceback" not in message


def test_missing_vocabulary_stops_the_start(tmp_path: Path) -> None:
    """Without vocabularies the server does not start, says what to do and downloads nothing."""
    message = failed_start(TIKTOKEN_CACHE_DIR=str(tmp_path))
    assert str(tmp_path) in message
    assert "git checkout" in message
    assert "Traceback" not in message
    assert list(tmp_path.iterdir()) == []


def test_damaged_vocabulary_stops_the_start(tmp_path: Path) -> None:
    """With a damaged vocabulary the server does not start, and leaves the file alone."""
    shutil.copytree(REPOSITORY / "tiktoken_cache", tmp_path, dirs_exist_ok=True)
    damaged = max(tmp_path.iterdir())
    damaged.write_bytes(b"not a vocabulary")
    assert str(damaged) in failed_start(TIKTOKEN_CACHE_DIR=str(tmp_path))
    assert damaged.read_bytes() == b"not a vocabulary"


# --------------------------------------------------------------------------------------
# The end
# --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_sigterm_lets_streams_finish() -> None:
    """After SIGTERM a running stream goes on to [DONE], and then the server ends."""
    with (
        running_server("--arg", "workers=1") as server,
        httpx.Client(trust_env=False, verify=TLS) as client,
    ):
        assert server.process is not None
        request = client.stream(
            "POST",
            server.url + CHAT_PATH,
            json=chat(stream=True),
            headers=headers(itl_ms=50, output_length=16),
        )
        with request as response:
            pieces = response.iter_text()
            received = next(pieces)
            server.process.send_signal(signal.SIGTERM)
            received += "".join(pieces)
        assert received.count('"content":"') == 1 + 16
        assert received.endswith("data: [DONE]\n\n")
        assert server.process.wait(STOP_TIMEOUT_S) == 0


@pytest.mark.slow
def test_waiting_server_ends() -> None:
    """A server with nothing to do ends after SIGTERM, and frees its port."""
    with running_server(*args(workers=1)) as server:
        assert server.process is not None
        server.process.terminate()
        assert server.process.wait(STOP_TIMEOUT_S) == 0
        with pytest.raises(httpx.ConnectError):
            PLAIN.get(f"{server.url}/livez")
