"""Recorded traces: files, prompts, and their replay as a user runs it."""

import json
import os
import re
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiktoken

from loadtest.prompts import CHAT_TOKENS, prompt
from loadtest.trace_files import (
    BLOCK_TOKENS,
    IN_DISORDER,
    MAX_LINE_CHARACTERS,
    Trace,
    TraceError,
    TraceRequest,
)
from tests.loadtest.running import two_processes
from tests.support.chat_stub import Stub, running_stub
from tests.support.server import PLAIN, REPOSITORY, Server

ENCODINGS = ("cl100k_base", "o200k_base", "p50k_base")

AZURE_2023 = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319600,3180,8
2023-11-16 18:17:05,110,27
"""
AZURE_2024 = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:00.517930+00:00,2399,6
"""
BURST = """\
Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
5,s1,1.2,ChatGPT,472,18,490,Conversation log
45.5,,0.1,ChatGPT,1087,230,1317,API log
"""
OLD_BURST = """\
Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45.5,GPT-4,1087,230,1317,Conversation log
"""
MOONCAKE = """\
{"timestamp": 1000, "input_length": 1200, "output_length": 52, "hash_ids": [0, 1, 2]}

{"timestamp": 4500, "input_length": 513, "output_length": 26, "hash_ids": [0, 7]}
"""
BURST_REQUESTS = [TraceRequest(0.0, 472, 18), TraceRequest(40.5, 1087, 230)]


def trace(folder: Path, text: str, limit: int | None = None) -> Trace:
    """Return the trace that a file with this text holds."""
    path = folder / "trace"
    path.write_text(text)
    return Trace(path, limit)


def rounded(requests: Iterator[TraceRequest] | Trace) -> list[tuple[float, int, int]]:
    """Return times, to the ms, and lengths."""
    return [(round(r.arrival_s, 3), r.prompt_tokens, r.output_tokens) for r in requests]


def mooncake(*times_ms: float) -> str:
    """Return a trace with a request for each time; its prompt's length says which it is."""
    lines = (
        {"timestamp": time_ms, "input_length": 100 + i, "output_length": 4, "hash_ids": []}
        for i, time_ms in enumerate(times_ms)
    )
    return "".join(json.dumps(line) + "\n" for line in lines)


# --------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------


def test_azure_traces_of_both_years_are_read(tmp_path: Path) -> None:
    """Dates with seven digits of a second, with none, and with an offset."""
    expected = [(0.0, 4808, 10), (0.052, 3180, 8), (1.02, 110, 27)]
    assert rounded(trace(tmp_path, AZURE_2023)) == expected
    assert rounded(trace(tmp_path, AZURE_2024)) == [(0.0, 2162, 5), (0.508, 2399, 6)]


def test_burstgpt_columns_are_found_by_name(tmp_path: Path) -> None:
    """Older files lack some columns, a byte order mark may precede, and any order will do."""
    turned = "\n".join(",".join(reversed(line.split(","))) for line in BURST.splitlines())
    for text in (BURST, OLD_BURST, "\ufeff" + BURST, turned, BURST.replace("\n", "\r\n")):
        assert list(trace(tmp_path, text)) == BURST_REQUESTS


def test_mooncake_traces_keep_their_blocks(tmp_path: Path) -> None:
    """Times are in ms, and a blank line is none."""
    first, second = trace(tmp_path, MOONCAKE)
    assert first == TraceRequest(0.0, 1200, 52, (0, 1, 2))
    assert second == TraceRequest(3.5, 513, 26, (0, 7))


def test_recorded_failures_are_left_out(tmp_path: Path) -> None:
    """A line whose answer has no token is counted, and takes no part in the limit."""
    text = BURST.replace("1.2,ChatGPT,472,18", "1.2,ChatGPT,472,0") + "50,,,x,9,9,18,y\n" * 3
    found = trace(tmp_path, text, limit=2)
    assert rounded(found) == [(0.0, 1087, 230), (4.5, 9, 9)]
    assert found.unanswered == 1


BLOCKS = '{"timestamp": 1, "input_length": 1200, "output_length": 1, "hash_ids": '
ENDLESS = '{"timestamp": 1, "input_length": 9, "output_length": 1e400}\n'
BAD_FILES = [
    ("", 0, "expected the columns TIMESTAMP,ContextTokens,GeneratedTokens or Timestamp,Request"),
    ("a,b\n1,2\n", 1, "or lines of JSON, but got 'a,b'"),
    (AZURE_2023 + "yesterday,1,2\n", 5, "a time like 2023-11-16 18:17:03.97 as TIMESTAMP, but got"),
    (AZURE_2023 + "2023-11-16 18:17:06,1\n", 5, "expected 3 columns, but got 2"),
    (AZURE_2023 + "2023-11-16 18:17:06,1,2.5\n", 5, "as GeneratedTokens, but got '2.5'"),
    (AZURE_2023 + "2023-11-16 18:17:06,many,2\n", 5, "a number as ContextTokens, but got 'many'"),
    (OLD_BURST + "60,x,-1,2,1,y\n", 4, "a whole number from 0 to 2097152 as Request tokens"),
    (OLD_BURST + "60,x,1,131073,1,y\n", 4, "a whole number from 0 to 131072 as Response tokens"),
    (OLD_BURST + "nan,x,1,2,1,y\n", 4, "a number as Timestamp, but got 'nan'"),
    (OLD_BURST + '60,"x\n', 4, "expected 6 columns, but got 2"),
    (MOONCAKE + "[5]\n", 4, r"a JSON object, but got '\[5\]'"),
    (MOONCAKE + "{\n", 4, "a JSON object, but got '{'"),
    (MOONCAKE + '{"timestamp": 1}\n', 4, "a number as input_length, but got None"),
    (MOONCAKE + '{"timestamp": true}\n', 4, "as input_length"),
    (
        MOONCAKE + '{"timestamp": 1, "input_length": 9, "output_length": 1e400}\n',
        4,
        "output_length",
    ),
    (
        BLOCKS + "[0, 1, 2, 3]}\n",
        1,
        "at most 3 hash_ids, one for each 512 of 1200 tokens, but got 4",
    ),
    (BLOCKS + "[-1]}\n", 1, "of at least 0 as hash_ids"),
    (BLOCKS + "5}\n", 1, "of at least 0 as hash_ids, but got 5"),
    ("{" + " " * MAX_LINE_CHARACTERS, 1, f"a line of less than {MAX_LINE_CHARACTERS} characters"),
]


@pytest.mark.parametrize(("text", "line", "message"), BAD_FILES)
def test_a_bad_line_is_refused_with_its_number(
    tmp_path: Path, text: str, line: int, message: str
) -> None:
    """The message says file, line, what was expected and what came."""
    found = trace(tmp_path, text)
    with pytest.raises(TraceError, match=message) as error:
        found.check()
    assert str(error.value).startswith(f"{found.path}:{line}: expected ")


@pytest.mark.parametrize(
    "text", ["TIMESTAMP,ContextTokens,GeneratedTokens\n", BURST[:100], "\0\xff"]
)
def test_a_file_without_requests_is_refused(tmp_path: Path, text: str) -> None:
    """A replay of nothing must not pass."""
    with pytest.raises(TraceError, match=re.escape(str(tmp_path))):
        trace(tmp_path, text).check()


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """Neither a missing file nor bytes that are no text."""
    (tmp_path / "bytes").write_bytes(b"\xff\xfe" * 10)
    for name in ("missing", "bytes", "."):
        with pytest.raises(TraceError, match="cannot be read"):
            Trace(tmp_path / name).check()


def test_lines_may_be_out_of_order_a_little(tmp_path: Path) -> None:
    """They are sorted among 1,024, and one that is further off is refused with its line."""
    times_ms = list(range(0, 3000, 10))
    found = rounded(trace(tmp_path, mooncake(*times_ms[5:], *times_ms[:5])))
    assert [arrival_s for arrival_s, *_ in found] == [time_ms / 1000 for time_ms in times_ms]
    far = trace(tmp_path, mooncake(*range(1000, 1000 + IN_DISORDER + 5), 0))
    message = f":{IN_DISORDER + 6}: expected times in order, but this one is 1.00"
    with pytest.raises(TraceError, match=message):
        far.check()


def test_a_long_trace_takes_no_memory(tmp_path: Path) -> None:
    """Lines are read as they are needed, and a limit ends the reading."""
    found = trace(tmp_path, mooncake(*range(10_000)))
    tracemalloc.start()
    try:
        assert sum(1 for _ in found) == 10_000
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert rounded(Trace(found.path, limit=2)) == [(0.0, 100, 4), (0.001, 101, 4)]


# --------------------------------------------------------------------------------------
# Prompts
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENCODINGS)
def test_prompts_have_the_recorded_length(name: str) -> None:
    """To the token, with blocks and without, in each of OpenAI's encodings."""
    encoding = tiktoken.get_encoding(name)
    for tokens in (1, 7, 8, 9, 16, 17, 511, 512, 519, 520, 1200, 20_000):
        for blocks in ((), tuple(range(tokens // 600)), tuple(range(-(-tokens // BLOCK_TOKENS)))):
            text = prompt(TraceRequest(0.0, tokens, 1, blocks), 2**63 + tokens)
            assert len(encoding.encode(text)) == max(1, tokens - CHAT_TOKENS)


def test_equal_blocks_are_an_equal_prefix() -> None:
    """What follows the shared blocks differs from its first tokens on."""
    encoding = tiktoken.get_encoding("o200k_base")
    texts = [
        prompt(TraceRequest(0.0, 2000, 1, blocks), number)
        for number, blocks in enumerate([(1, 2, 3, 4), (1, 2, 9, 4), (1, 2), (5, 2, 3, 4)])
    ]
    first, *others = map(encoding.encode, texts)
    together = [zip(first, other, strict=False) for other in others]
    shared = [next(i for i, (a, b) in enumerate(pairs) if a != b) for pairs in together]
    assert shared == [2 * BLOCK_TOKENS, 2 * BLOCK_TOKENS, 0]


def test_prompts_without_blocks_share_nothing() -> None:
    """A prefix cache would otherwise answer what the recorded server had to read."""
    request = TraceRequest(0.0, 100, 1)
    assert len({prompt(request, number)[:40] for number in range(1000)}) == 1000


# --------------------------------------------------------------------------------------
# Replay
# --------------------------------------------------------------------------------------


def locust(host: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run locust until it ends by itself."""
    command = [sys.executable, "-m", "locust", "-f", "locustfile.py", "--host", host, "--headless"]
    return subprocess.run(  # noqa: S603 - our own command line
        [*command, "--only-summary", *arguments],
        cwd=REPOSITORY,
        env={k: v for k, v in os.environ.items() if k != "LOCUST_SKIP_MONKEY_PATCH"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def replay(host: str, path: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run locust with a trace until it ends by itself."""
    return locust(host, "--trace", str(path), *arguments)


def prompts_seen(stub: Stub) -> list[str]:
    """Return the prompts that a server was sent."""
    return [body["messages"][0]["content"] for body in stub.bodies]


@pytest.fixture
def stub() -> Iterator[Stub]:
    """Yield a server that answers nothing but a good stream or answer, 0.8 s late."""
    with running_stub(delay_s=0.8) as started:
        yield started


@pytest.mark.slow
def test_each_request_is_sent_once_by_one_of_the_workers(tmp_path: Path, stub: Stub) -> None:
    """At its recorded time by the speed, though nothing was answered yet, and then the run ends."""
    path = trace(tmp_path, mooncake(*range(0, 4000, 50))).path
    arguments = ("--no-emulation-headers", *two_processes(), "-u", "2", "-r", "2")
    result = replay(stub.url, path, *arguments, "--trace-speed", "4", "--trace-limit", "60")
    assert result.returncode == 0, result.stderr
    assert f"Replayed 60 requests of {path}" in result.stderr
    lengths = Counter(len(text.split()) for text in prompts_seen(stub))
    assert lengths == Counter({100 + i - CHAT_TOKENS: 1 for i in range(60)})
    took_s = max(stub.arrivals_s) - min(stub.arrivals_s)
    assert 59 * 0.0125 - 0.1 < took_s < 20  # one after the other would take 48 s
    answers = {(body["max_completion_tokens"], body["ignore_eos"]) for body in stub.bodies}
    assert answers == {(4, True)}


@pytest.mark.slow
def test_a_server_that_refuses_ignore_eos_is_not_sent_it(tmp_path: Path) -> None:
    """OpenAI's own API knows no such parameter."""
    path = trace(tmp_path, MOONCAKE).path
    with running_stub() as stub:
        arguments = ("--no-emulation-headers", "--no-ignore-eos", "--trace-speed", "10")
        result = replay(stub.url, path, *arguments)
    assert result.returncode == 0, result.stderr
    assert len(stub.bodies) == 2
    assert not any("ignore_eos" in body for body in stub.bodies)


@pytest.mark.slow
def test_the_emulator_answers_with_the_recorded_lengths(tmp_path: Path, one_worker: Server) -> None:
    """In one row, whatever the lengths are, and as long as recorded by the emulator's own count."""
    found = trace(tmp_path, MOONCAKE)
    before = one_worker.metrics().total("openai_emulator_tokens_total")
    result = replay(one_worker.url, found.path, "--itl-ms", "1", "--trace-speed", "10")
    assert result.returncode == 0, result.stderr
    assert re.search(r"^E2E +trace itl=1 +2 +0\(0.00%\)", result.stderr, re.MULTILINE)
    assert one_worker.metrics().total("openai_emulator_tokens_total") - before == 52 + 26
    for request in found:
        message = {"role": "user", "content": prompt(request, 7)}
        body = {"model": "gpt-4o", "messages": [message], "max_tokens": 1}
        answer = PLAIN.post(f"{one_worker.url}/v1/chat/completions", json=body)
        assert answer.json()["usage"]["prompt_tokens"] == request.prompt_tokens


def test_a_bad_trace_stops_the_start(tmp_path: Path) -> None:
    """Nothing is sent, and the message names file and line."""
    path = trace(tmp_path, MOONCAKE + "[5]\n").path
    with running_stub() as stub:
        with ThreadPoolExecutor(2) as pool:
            runs = [
                pool.submit(replay, stub.url, path, *processes)
                for processes in ((), two_processes())
            ]
        for result in (run.result() for run in runs):
            assert result.returncode == 1
            assert f"locust: {path}:4: expected a JSON object, but got '[5]'" in result.stderr
    assert stub.bodies == []


def test_a_trace_and_its_user_belong_together(tmp_path: Path) -> None:
    """A trace that nobody would replay is refused, and so is a user without one."""
    path = trace(tmp_path, MOONCAKE).path
    messages = {
        ("--trace", str(path), "ShortChatUser"): "--trace needs TraceUser, which was not picked",
        ("TraceUser",): "TraceUser needs a file to replay: --trace FILE",
    }
    with ThreadPoolExecutor(len(messages)) as pool:
        results = list(pool.map(lambda words: locust("http://127.0.0.1:1", *words), messages))
    for result, message in zip(results, messages.values(), strict=True):
        assert result.returncode == 1
        assert f"locust: {message}" in result.stderr
