"""OpenAI's errors by their code: X-FAULT-CODE and X-FAULT-MESSAGE."""

import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from emulator.faults.asking import MAX_MESSAGE_LENGTH
from emulator.faults.codes import CODES
from emulator.faults.deciding import decide
from emulator.faults.rules import read_rules
from emulator.faults.statuses import error_body
from tests.support.cut_wire import CHAT, ENDPOINTS, RESPONSES, WHOLE_ENDPOINTS, Endpoint, exchange
from tests.support.sdk import complete
from tests.support.server import Server
from tests.support.wire import CHAT_PATH, chat, headers

KEY = "sk-0123456789abcdef"


def fail(**options: object) -> dict[str, str]:
    """Return the headers that ask for a failure."""
    named = {f"X-FAULT-{name.upper().replace('_', '-')}": str(v) for name, v in options.items()}
    return headers() | named


def refused(server: Server, endpoint: Endpoint, asked: dict[str, str]) -> tuple[int, Any]:
    """Return status and error of the answer to a request for a whole answer."""
    came = exchange(server.address, endpoint.path, endpoint.body(False), asked)
    return came.status, json.loads(came.body)["error"]


@pytest.mark.parametrize("endpoint", WHOLE_ENDPOINTS, ids=str)
@pytest.mark.parametrize("code", CODES)
def test_code_decides(one_worker: Server, endpoint: Endpoint, code: str) -> None:
    """A code decides status, type and message of the answer of every API."""
    asked = fail(code=code) | {"Authorization": f"Bearer {KEY}"}
    status, error = refused(one_worker, endpoint, asked)
    assert (status, error["type"], error["code"]) == (CODES[code].status, CODES[code].type, code)
    assert "{" not in error["message"]
    assert len(error["message"]) > 20


def test_words_of_a_key_and_a_model() -> None:
    """The key is told without its middle, and the model by its name."""
    key = error_body(401, model="m", api_key=KEY, code="invalid_api_key").message
    assert "sk-01234*******cdef" in key
    assert "`m`" in error_body(404, model="m", code="model_not_found").message


@pytest.mark.parametrize(
    ("endpoint", "param", "said"),
    [
        (CHAT, "messages", "your messages resulted in"),
        (RESPONSES, "input", "Your input exceeds the context window of this model."),
        (WHOLE_ENDPOINTS[1], None, "in your prompt; 20 for the completion"),
        (WHOLE_ENDPOINTS[3], None, "in your prompt; 0 for the completion"),
    ],
    ids=str,
)
def test_each_api_calls_a_prompt_too_long(
    one_worker: Server, endpoint: Endpoint, param: str | None, said: str
) -> None:
    """That a prompt is too long is told in the words of its API."""
    _, error = refused(one_worker, endpoint, fail(code="context_length_exceeded"))
    assert error["param"] == param
    assert said in error["message"]


def test_quota_is_no_rate_limit(client: openai.OpenAI) -> None:
    """A quota that is spent is a 429 of its own, without a wait."""
    with pytest.raises(openai.RateLimitError) as caught:
        complete(client, fail(code="insufficient_quota"))
    assert (caught.value.type, caught.value.code) == ("insufficient_quota", "insufficient_quota")
    assert not {"retry-after", "retry-after-ms"} & set(caught.value.response.headers)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
def test_code_in_mid_stream(one_worker: Server, endpoint: Endpoint) -> None:
    """An error within a stream has the code and the message too."""
    asked = fail(kind="error", code="server_is_overloaded", message="full", after_tokens=2)
    came = exchange(one_worker.address, endpoint.path, endpoint.body(True), asked)
    told = next(event for event in came.events if b'"server_is_overloaded"' in event)
    error = endpoint.error(told)
    assert came.status == 200
    assert came.tokens(endpoint) == 2
    assert (error["code"], error["message"]) == ("server_is_overloaded", "full")


def test_code_of_a_failed_response(one_worker: Server) -> None:
    """A response that failed tells the code and the message."""
    status, error = refused(
        one_worker, RESPONSES, fail(kind="failed", code="invalid_prompt", message="no")
    )
    assert (status, error) == (200, {"code": "invalid_prompt", "message": "no"})


def test_status_and_message_of_ones_own(one_worker: Server) -> None:
    """A status and a message that are given stand in place of the code's."""
    asked = fail(code="rate_limit_exceeded", status=503, message="{later}, please")
    status, error = refused(one_worker, CHAT, asked)
    assert (status, error["type"], error["code"]) == (503, "tokens", "rate_limit_exceeded")
    assert error["message"] == "{later}, please"
    status, error = refused(one_worker, CHAT, fail(status=418, message="short and stout"))
    assert (status, error["code"], error["message"]) == (418, None, "short and stout")


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_message_in_any_encoding(one_worker: Server, encoding: str) -> None:
    """A message in a header is taken for UTF-8, and for Latin-1 where it is none."""
    asked = fail(status=500)
    with httpx.Client(base_url=one_worker.url, trust_env=False) as http:
        sent = [*asked.items(), ("X-FAULT-MESSAGE", "später".encode(encoding))]
        answer = http.post(CHAT_PATH, json=chat(), headers=sent)  # type: ignore[arg-type]
    assert answer.json()["error"]["message"] == "später"


def test_the_body_asks_too(http: httpx.Client) -> None:
    """Code and message can be said in the body."""
    emulation = {"fault_code": "invalid_prompt", "fault_message": "nein \N{SNOWMAN}"}
    answer = http.post(CHAT_PATH, json=chat(emulation=emulation))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_prompt")
    assert error["message"] == "nein \N{SNOWMAN}"
    answer = http.post(CHAT_PATH, json=chat(emulation={"fault_code": "none"}))
    assert answer.json()["error"]["param"] == "emulation.fault_code"


def test_rules_ask_too(tmp_path: Path) -> None:
    """A rule takes a code and a message."""
    file = tmp_path / "faults.yaml"
    file.write_text("- {code: insufficient_quota, message: spent}\n- {kind: error, code: x}\n")
    with pytest.raises(Exception, match=r"line 2: code: expected one of rate_limit_exceeded"):
        read_rules(file)
    file.write_text("- {code: insufficient_quota, message: spent}\n")
    fault = decide(read_rules(file)[0], 0, None)
    assert fault is not None
    assert (fault.kind.name, fault.status) == ("status", 429)
    assert (fault.code, fault.message) == ("insufficient_quota", "spent")


@pytest.mark.parametrize(
    ("asked", "named", "said"),
    [
        ({"code": "quota"}, "X-FAULT-CODE", "insufficient_quota"),
        ({"kind": "eof", "code": "invalid_prompt"}, "X-FAULT-CODE", "status, error, failed"),
        ({"kind": "reset", "message": "x"}, "X-FAULT-MESSAGE", "but got reset"),
        ({"message": "x"}, "X-FAULT-MESSAGE", "X-FAULT-KIND, X-FAULT-STATUS or X-FAULT-CODE"),
        ({"status": 500, "message": "x" * (MAX_MESSAGE_LENGTH + 1)}, "X-FAULT-MESSAGE", "1024"),
        (
            {"code": "insufficient_quota", "retry_after_ms": 5},
            "X-FAULT-RETRY-AFTER-MS",
            "but got insufficient_quota",
        ),
    ],
)
def test_contradictions(
    one_worker: Server, asked: dict[str, object], named: str, said: str
) -> None:
    """What is no code, or says nothing to the rest, is a 400 that names both."""
    status, error = refused(one_worker, CHAT, fail(**asked))
    assert (status, error["param"]) == (400, named)
    assert said in error["message"]
