"""What headers say where they do not reach: in a body, and in a file of profiles."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from conftest import PROFILES
from emulator.emulation.header_fields import HEADERS_BY_FIELD, _ours, given_headers
from emulator.emulation.profiles import read_profiles
from emulator.settings import ConfigError, Settings
from schemas import EmulationHeaders
from tests.serving.test_settings import failed_start
from tests.support.reference import cpu_s, here_s, least
from tests.support.sdk import complete, text_of
from tests.support.server import PLAIN, Server
from tests.support.simulated.client import Simulated
from tests.support.wire import CHAT_PATH, chat, headers, stream, token_count

QUICK = {"ttft_ms": 0, "itl_ms": 0}
TOOL = {"type": "function", "function": {"name": "f"}}


def error_of(http: httpx.Client, emulation: object, **parameters: object) -> dict[str, Any]:
    """Return the error of a chat that is refused."""
    response = http.post(CHAT_PATH, json=chat(emulation=emulation, **parameters))
    assert response.status_code == 400, response.text
    error: dict[str, Any] = response.json()["error"]
    return error


# --------------------------------------------------------------------------------------
# In the body
# --------------------------------------------------------------------------------------


def test_times_and_length_in_the_body(address: tuple[str, int]) -> None:
    """A body's emulation sets TTFT, ITL and length as headers do."""
    answer = stream(address, emulation={"ttft_ms": 200.5, "itl_ms": 20, "output_length": 7})
    assert len(answer.content) == 7
    assert answer.early(200.5, 20) == []


def test_every_header_has_its_field() -> None:
    """Each X-* header has a field of the name that the code knows it by."""
    assert {HEADERS_BY_FIELD[field] for field in EmulationHeaders.model_fields} == {
        field.alias for field in EmulationHeaders.model_fields.values()
    }


def test_fields_of_the_body_do_what_their_headers_do(http: httpx.Client) -> None:
    """Reasoning, calls, cached tokens, jitter and the report are asked for as by header."""
    emulation = {
        "ttft_ms": 12.5,
        "itl_ms": "3",
        "reasoning_length": 4,
        "tool_calls": 2,
        "cached_tokens": 3,
        "ttft_jitter": "exponential",
        "itl_jitter": "uniform:0.5",
        "emulation_report": True,
    }
    answer = http.post(CHAT_PATH, json=chat(emulation=emulation, tools=[TOOL], seed=1)).json()
    usage, times = answer["usage"], answer["emulation"]
    assert len(answer["choices"][0]["message"]["tool_calls"]) == 2
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 4
    assert usage["prompt_tokens_details"]["cached_tokens"] == 3
    assert times["itl_ms"]["asked"] == 3
    unscattered_ms = 12.5 + 3 * (usage["completion_tokens"] - 1)
    assert times["total_ms"]["asked"] != pytest.approx(unscattered_ms)


def test_batch_size_in_the_body(address: tuple[str, int]) -> None:
    """Tokens are sent in the batches that the body asks for."""
    answer = stream(address, emulation={**QUICK, "output_length": 6, "sse_batch_size": 3})
    assert len(answer.content) == 2


def test_header_wins_over_the_body(simulated: Simulated) -> None:
    """Where header and body both say something the header counts, field by field."""
    asked = {"X-OUTPUT-LENGTH": "3"}
    answer = simulated.stream(asked, emulation={**QUICK, "output_length": 9})
    assert answer.times_s == [0, 0, 0]  # by default they would be due from 100 ms on


def test_null_says_nothing(client: openai.OpenAI) -> None:
    """A body's emulation may be null, and so may its fields."""
    body = {"emulation": {"output_length": None, **QUICK}}
    assert (
        token_count(text_of(complete(client, {"X-A": "b"}, extra_body=body)), "cl100k_base") == 20
    )
    answer = complete(client, headers(output_length=4), extra_body={"emulation": None})
    assert token_count(text_of(answer), "cl100k_base") == 4


def test_failure_asked_for_in_the_body(http: httpx.Client) -> None:
    """What X-FAULT-* headers ask for can be asked for in the body, and is checked likewise."""
    failing = {"fault_status": 503, "fault_retry_after_ms": 1500}
    response = http.post(CHAT_PATH, json=chat(emulation=failing))
    assert (response.status_code, response.headers["retry-after-ms"]) == (503, "1500")
    error = error_of(http, {"fault_status": 200})
    assert error["param"] == "emulation.fault_status"
    assert error["message"].startswith("Invalid 'emulation.fault_status': expected a status from")
    error = error_of(http, {"fault_status": 503, "fault_after_ms": 5, "fault_after_tokens": 1})
    assert error["param"] == "emulation.fault_after_ms"


def test_header_of_a_failure_wins_over_the_body(http: httpx.Client) -> None:
    """A failure's header counts before the body as well."""
    body = chat(emulation={"fault_status": 503})
    assert http.post(CHAT_PATH, json=body, headers={"X-FAULT-STATUS": "502"}).status_code == 502


def test_body_is_for_legacy_completions_too(http: httpx.Client) -> None:
    """The legacy endpoint takes the object as well."""
    asked = {"model": "gpt-4", "prompt": "hi", "emulation": {**QUICK, "output_length": 3}}
    answer = http.post("/v1/completions", json=asked).json()
    assert answer["usage"]["completion_tokens"] == 3


def test_body_is_for_responses_too(http: httpx.Client) -> None:
    """Responses take the object as well."""
    asked = {"model": "gpt-4", "input": "hi", "emulation": {**QUICK, "output_length": 3}}
    answer = http.post("/v1/responses", json=asked).json()
    assert answer["usage"]["output_tokens"] == 3


def test_body_is_for_embeddings_too(http: httpx.Client) -> None:
    """Embeddings take the object as well."""
    asked = {"model": "text-embedding-3-small", "input": "hi"}
    emulation = {"ttft_ms": 250, "emulation_report": True}
    answer = http.post("/v1/embeddings", json={**asked, "emulation": emulation}).json()
    assert answer["emulation"]["total_ms"]["asked"] == 250


def test_strict_mode_takes_it(other_client: openai.OpenAI) -> None:
    """With strict_parameters the object is no unknown parameter."""
    answer = complete(other_client, extra_body={"emulation": {"output_length": 5}})
    assert answer.choices[0].message.content


BAD: dict[str, tuple[Mapping[str, object], str, str, str]] = {
    "text": (
        {"ttft_ms": "soon"},
        "emulation.ttft_ms",
        "invalid_value",
        "Invalid 'emulation.ttft_ms': expected a number of milliseconds from 0 to 600000, "
        "but got 'soon' instead.",
    ),
    "range": (
        {"output_length": 0},
        "emulation.output_length",
        "invalid_value",
        "Invalid 'emulation.output_length': expected a whole number of tokens from 1 to 131072, "
        "but got '0' instead.",
    ),
    "boolean": (
        {"itl_ms": True},
        "emulation.itl_ms",
        "invalid_value",
        "Invalid 'emulation.itl_ms': expected a number of milliseconds from 0 to 60000, "
        "but got 'true' instead.",
    ),
    "huge": (
        {"itl_ms": 10**4000},
        "emulation.itl_ms",
        "invalid_value",
        "Invalid 'emulation.itl_ms': expected a number of milliseconds from 0 to 60000, "
        "but got 'an integer of more than 64 bits' instead.",
    ),
    "array": (
        {"itl_ms": [5]},
        "emulation.itl_ms",
        "invalid_type",
        "Invalid type for 'emulation.itl_ms': expected one of a number, string or boolean, "
        "but got an array instead.",
    ),
    "jitter": (
        {"itl_jitter": "exponential:2"},
        "emulation.itl_jitter",
        "invalid_value",
        "Invalid 'emulation.itl_jitter': expected ",
    ),
    "unknown": (
        {"ttft": 5},
        "emulation.ttft",
        "unknown_parameter",
        "Unknown parameter: 'emulation.ttft'.",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_body_is_checked_as_headers_are(http: httpx.Client, kind: str) -> None:
    """A faulty field is refused as the header would be, and named where it stands."""
    emulation, param, code, message = BAD[kind]
    error = error_of(http, emulation)
    assert (error["param"], error["code"]) == (param, code)
    assert error["message"].startswith(message)


def test_too_many_fields_are_refused(http: httpx.Client) -> None:
    """The object has a bound."""
    error = error_of(http, {f"a{number}": 1 for number in range(65)})
    assert (error["param"], error["code"]) == ("emulation", "object_above_max_properties")


def test_later_faults_name_the_body_too(http: httpx.Client) -> None:
    """What turns out to be too much when the answer is made is named where it stands."""
    error = error_of(http, {"output_length": 131_072, "reasoning_length": 1})
    assert error["param"] == "emulation.reasoning_length"
    slow = {"ttft_ms": 300_000, "output_length": 2}
    error = error_of(http, slow)
    assert "lower emulation.ttft_ms, X-ITL-MS or emulation.output_length" in error["message"]


def test_header_in_fault_is_named_as_header(http: httpx.Client) -> None:
    """A header that is at fault keeps its name, whatever the body says."""
    body = chat(emulation={"ttft_ms": 5})
    response = http.post(CHAT_PATH, json=body, headers={"X-TTFT-MS": "soon"})
    assert response.json()["error"]["param"] == "X-TTFT-MS"


# --------------------------------------------------------------------------------------
# Profiles
# --------------------------------------------------------------------------------------


def test_models_differ(lenient_server: Server) -> None:
    """One server plays a slow and a fast model, each with its own length."""
    report = {"X-EMULATION-REPORT": "true"}
    slow, fast = (
        stream(lenient_server.address, report, model=model) for model in ("slow-talker", "fast")
    )
    assert (len(slow.content), len(fast.content)) == (3, 300)
    assert slow.early(300, 20) == []
    assert fast.report["total_ms"]["asked"] == 0


def test_other_models_have_the_settings(lenient_server: Server) -> None:
    """A model that no glob matches has the server's defaults."""
    assert len(stream(lenient_server.address, model="gpt-4").content) == 20


def test_header_and_body_win_over_the_profile(lenient_server: Server) -> None:
    """Headers and body count before the profile, field by field."""
    answer = stream(
        lenient_server.address,
        {"X-OUTPUT-LENGTH": "2"},
        model="slow-one",
        emulation={"ttft_ms": 10, "output_length": 5, "emulation_report": True},
    )
    assert len(answer.content) == 2
    assert answer.report["ttft_ms"]["asked"] == 10


def test_profile_sets_all_that_headers_set(lenient_server: Server) -> None:
    """Reasoning and the report come from a profile too."""
    answer = stream(
        lenient_server.address, model="a-talker", stream_options={"include_usage": True}
    )
    details = answer.chunks[-1]["usage"]["completion_tokens_details"]
    assert details["reasoning_tokens"] == 2
    assert answer.report["ttft_ms"]["asked"] == 102


def test_profile_is_named_in_errors(lenient_server: Server) -> None:
    """An error that comes of a profile's field names it."""
    response = PLAIN.post(
        lenient_server.url + CHAT_PATH,
        json=chat(model="a-talker"),
        headers={"X-OUTPUT-LENGTH": "301"},
    )
    assert response.json()["error"]["param"] == "profile.reasoning_length"


def test_ignore_eos_for_every_request(lenient_server: Server) -> None:
    """With the setting a limit alone lengthens the answer, unless the request says otherwise."""
    lengths = [
        len(stream(lenient_server.address, model="gpt-4", max_tokens=30, itl_ms=0, **extra).content)
        for extra in (
            {"emulation": QUICK},
            {"emulation": QUICK, "ignore_eos": False},
            {"emulation": {**QUICK, "output_length": 4}},
        )
    ]
    assert lengths == [30, 20, 4]


def read(tmp_path: Path, text: str) -> Any:  # noqa: ANN401
    """Return the profiles of a file with this text."""
    path = tmp_path / "p.yaml"
    path.write_text(text)
    return read_profiles(path, Settings(), {})


def test_remembered_models_are_bounded(tmp_path: Path) -> None:
    """However many models are asked for, and however long their names, memory is bounded."""
    profiles = read(tmp_path, PROFILES)
    for number in range(3000):
        profiles.of(f"slow-{number}")
        profiles.of(f"slow-{number}{'x' * 200}")
    assert profiles.cached == 1024
    assert profiles.of("slow-" + "x" * 10_000)["X-TTFT-MS"] == "300"


def test_a_thousand_profiles_are_found_quickly(tmp_path: Path) -> None:
    """A model seen before costs no search through the file."""
    profiles = read(tmp_path, "\n".join(f"- model: a*b*{i}" for i in range(1000)))
    profiles.of("gpt-4")

    def find_often() -> None:
        for _ in range(1000):
            profiles.of("gpt-4")

    most_s = here_s(0.05)
    assert least(lambda: cpu_s(find_often), below=most_s) < most_s


BAD_FILES = {
    "yaml": ("- model: a\n  ttft_ms: [", "line 2", "expected"),
    "no list": ("model: a", "line 1", "expected a list, but got fields with values"),
    "empty": ("", "line 1", "expected a list, but got nothing"),
    "no model": ("- ttft_ms: 5", "line 1", "model: it is missing"),
    "model": ("- model: [a]", "line 1", "model: Input should be a valid string"),
    "no fields": ("- model: a\n- b", "line 2", "expected fields with values"),
    "unknown": (
        "- model: a\n\n  ttft: 5",
        "line 3",
        "ttft: there is no such field; did you mean ttft_ms? There are model, ",
    ),
    "twice": ("- model: a\n  itl_ms: 5\n  itl_ms: 6", "line 3", "itl_ms: it is there twice"),
    "value": ("- model: a\n  itl_ms: soon", "line 2", "itl_ms: expected a number of"),
    "range": ("- model: a\n  itl_ms: -1", "line 2", "from 0 to 60000, but got '-1'"),
    "null": ("- model: a\n  itl_ms:", "line 2", "expected one of a number"),
    "list": ("- model: a\n  itl_ms: [5]", "line 2", "expected one of a number"),
    "jitter": ("- model: a\n  itl_jitter: x", "line 2", "itl_jitter: expected 'normal"),
    "trace": ("- model: a\n  itl_jitter: trace:x", "line 2", "expected a trace of this server"),
    "length": (
        "- model: b\n- model: a\n  output_length: 131072\n  reasoning_length: 1",
        "line 2",
        "expected at most 131072 tokens, but got 131073",
    ),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_profiles_are_refused(tmp_path: Path, kind: str) -> None:
    """A bad file is refused with its name, the line and what is wrong there."""
    text, line, problem = BAD_FILES[kind]
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'p.yaml'}, {line}: ")
    assert problem in str(caught.value)


def test_too_many_profiles_are_refused(tmp_path: Path) -> None:
    """A file has a bound."""
    with pytest.raises(ConfigError, match="line 1001: expected at most 1000 entries, but got 1001"):
        read(tmp_path, "- model: a\n" * 1001)


@pytest.mark.usefixtures("local_only")
def test_bad_profiles_stop_the_start(tmp_path: Path) -> None:
    """A bad file ends ``bentoml serve`` with a message that names file and line."""
    path = tmp_path / "p.yaml"
    path.write_text("- model: a\n  ttft_ms: -1\n")
    message = " ".join(failed_start("--arg", f"profiles={path}").split("\n"))
    assert f"{path}, line 2: ttft_ms: expected a number of" in message
    assert "Traceback" not in message


@pytest.mark.usefixtures("local_only")
def test_missing_profiles_stop_the_start(tmp_path: Path) -> None:
    """A file that is not there ends ``bentoml serve`` with a message that names it."""
    message = " ".join(failed_start("--arg", f"profiles={tmp_path / 'absent'}").split("\n"))
    assert f"{tmp_path / 'absent'}: No such file" in message
    assert "Traceback" not in message


# --------------------------------------------------------------------------------------
# Names that nobody has
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "nearest"),
    [
        ("X-Fault-Knid", "X-FAULT-KIND"),
        ("X-FAULT-AFTER-TOKEN", "X-FAULT-AFTER-TOKENS"),
        ("x-emulation-reports", "X-EMULATION-REPORT"),
        (f"X-FAULT-{'X' * 5000}", "X-"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
def test_unknown_names_are_told(http: httpx.Client, path: str, sent: str, nearest: str) -> None:
    """A header that begins as ours do and is none is a 400 that names it and the nearest."""
    answer = http.post(path, json=chat(input="x"), headers={**headers(), sent: "1"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "unknown_parameter")
    assert error["param"] == sent.upper()[:64]
    assert f"Did you mean '{nearest}" in error["message"]


def test_headers_of_gateways_pass(http: httpx.Client) -> None:
    """Headers that gateways add pass, whatever they say."""
    sent = {"X-Forwarded-For": "::1", "X-Envoy-Fault-Delay-Request": "1", "X-Faults": "1"}
    answer = http.post("/v1/chat/completions", json=chat(), headers={**headers(), **sent})
    assert answer.status_code == 200


def test_names_are_looked_at_once() -> None:
    """The names of headers that came before cost one look, and few of them are kept."""
    fields = {b"host": b"a", b"x-ttft-ms": b"5", b"x-request-id": b"1"}
    before = _ours.cache_info()
    for _ in range(3):
        assert given_headers([*fields.items()], dict(fields)) == {"X-TTFT-MS": "5"}
    after = _ours.cache_info()
    assert (after.hits - before.hits, after.misses - before.misses) in {(2, 1), (3, 0)}
    assert after.maxsize == 128
