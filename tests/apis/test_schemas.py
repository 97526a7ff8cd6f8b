"""The X-* headers, the length rules, and the plan of one generation."""

import math
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from emulator.apis.chat.asking import chat_ask
from emulator.contract.error_words import header_error
from emulator.reading.planning import plan_generation
from emulator.serving.timing import refuse_beyond_timeout
from emulator.settings import Settings
from emulator.timing.plan import GenerationPlan
from schemas import APIError, ChatCompletionRequest, EmulationHeaders
from tests.support.wire import chat

FEW = settings(max_examples=100, deadline=None)

# --------------------------------------------------------------------------------------
# Headers
# --------------------------------------------------------------------------------------

HEADERS = {
    "X-TTFT-MS": ("ttft_ms", 0, 600_000),
    "X-ITL-MS": ("itl_ms", 0, 60_000),
    "X-OUTPUT-LENGTH": ("output_length", 1, 131_072),
    "X-SSE-BATCH-SIZE": ("sse_batch_size", 1, 1024),
    "X-REASONING-LENGTH": ("reasoning_length", 0, 131_072),
    "X-TOOL-CALLS": ("tool_calls", 0, 128),
    "X-CACHED-TOKENS": ("cached_tokens", 0, 2**31 - 1),
}
TIMES = st.sampled_from(["X-TTFT-MS", "X-ITL-MS"])
COUNTS = st.sampled_from([name for name in HEADERS if not name.endswith("-MS")])


def read(name: str, value: str) -> Any:  # noqa: ANN401 - an int or a float
    """Return what a header's text is read as."""
    return getattr(EmulationHeaders.model_validate({name: value}), HEADERS[name][0])


def refusal(name: str, value: str) -> str:
    """Return the message about a faulty header, after checking that it names what it must."""
    with pytest.raises(ValidationError) as caught:
        EmulationHeaders.model_validate({name: value})
    error = header_error(caught.value, EmulationHeaders)
    assert (error.status, error.body.param) == (400, name)
    return error.body.message


@given(name=TIMES, data=st.data())
@FEW
def test_every_time_in_range_is_read(name: str, data: st.DataObject) -> None:
    """Every number of milliseconds in range is read as exactly that number."""
    _, low, high = HEADERS[name]
    value = data.draw(st.floats(low, high))
    assert read(name, repr(value)) == value


@given(name=COUNTS, data=st.data())
@FEW
def test_every_count_in_range_is_read(name: str, data: st.DataObject) -> None:
    """Every whole number in range is read as that number."""
    _, low, high = HEADERS[name]
    value = data.draw(st.integers(low, high))
    assert read(name, str(value)) == value


@given(name=TIMES, value=st.floats())
@FEW
def test_no_time_out_of_range_is_read(name: str, value: float) -> None:
    """NaN, infinity and numbers out of range are refused, naming header and range."""
    _, low, high = HEADERS[name]
    assume(not low <= value <= high)
    message = refusal(name, repr(value))
    assert all(str(part) in message for part in (name, low, high))


@given(name=COUNTS, value=st.integers())
@FEW
def test_no_count_out_of_range_is_read(name: str, value: int) -> None:
    """Whole numbers out of range are refused, naming header, range and value."""
    _, low, high = HEADERS[name]
    assume(not low <= value <= high)
    message = refusal(name, str(value))
    assert all(str(part) in message for part in (name, low, high, value))


def is_number(text: str) -> bool:
    """Tell whether this is a finite number, written as numbers are outside of Python."""
    try:
        return math.isfinite(float(text)) and "_" not in text
    except ValueError:
        return False


@given(
    name=st.sampled_from(sorted(HEADERS)),
    value=st.text(st.characters(codec="latin-1"), max_size=60),
)
@FEW
def test_no_junk_is_read(name: str, value: str) -> None:
    """Text that is no number is refused, and quoted in the message."""
    assume(not is_number(value))
    message = refusal(name, value)
    assert value in message
    assert all(str(part) in message for part in (name, *HEADERS[name][1:]))


@given(name=COUNTS, value=st.floats(1, 1000).filter(lambda value: value != int(value)))
@FEW
def test_counts_have_no_fractions(name: str, value: float) -> None:
    """A count of tokens with a fraction is refused, not rounded."""
    assert repr(value) in refusal(name, repr(value))


def test_message_stays_short() -> None:
    """A header of 8 kB does not come back whole."""
    assert len(refusal("X-TTFT-MS", "9" * 8000)) < 300


def test_headers_default_to_nothing() -> None:
    """Without headers the times and the length are left to the settings."""
    given_none = EmulationHeaders.model_validate({})
    assert given_none.model_dump() == {
        "ttft_ms": None,
        "itl_ms": None,
        "output_length": None,
        "sse_batch_size": 1,
        "reasoning_length": None,
        "tool_calls": 0,
        "cached_tokens": 0,
        "ttft_jitter": None,
        "itl_jitter": None,
        "text": None,
        "optional": None,
        "numbers": "whole",
        "head": None,
        "keepalive_ms": None,
        "flagged": None,
        "emulation_report": False,
        "emulation_strict": None,
        "emulation_scope": None,
        "emulation_revision": False,
    }


# --------------------------------------------------------------------------------------
# The plan
# --------------------------------------------------------------------------------------

TTFTS_S = st.floats(0, 600)
ITLS_S = st.floats(0, 60)
NUDGES = st.sampled_from([0.0, math.inf, -math.inf])


def test_worked_example() -> None:
    """With TTFT 200 ms and ITL 50 ms, 5 tokens are due at 200, 250, 300, 350 and 400 ms."""
    plan = GenerationPlan(5, "stop", 0.2, 0.05)
    assert [plan.due_s(i) for i in range(5)] == pytest.approx([0.2, 0.25, 0.3, 0.35, 0.4])
    assert plan.total_s == plan.due_s(4)


def due_by_definition(plan: GenerationPlan, elapsed_s: float) -> int:
    """Count the tokens that are due, one by one."""
    return sum(plan.due_s(i) <= elapsed_s for i in range(plan.output_tokens))


@given(n=st.integers(1, 60), ttft_s=TTFTS_S, itl_s=ITLS_S, elapsed_s=st.floats(0, 5000))
@FEW
def test_due_count_at_any_time(n: int, ttft_s: float, itl_s: float, elapsed_s: float) -> None:
    """As many tokens are due as have a due time that is not after now."""
    plan = GenerationPlan(n, "stop", ttft_s, itl_s)
    assert plan.due_count(elapsed_s) == due_by_definition(plan, elapsed_s)


@given(n=st.integers(1, 60), ttft_s=TTFTS_S, itl_s=ITLS_S, data=st.data(), nudge=NUDGES)
@settings(max_examples=150, deadline=None)
def test_due_count_at_the_boundaries(
    n: int, ttft_s: float, itl_s: float, data: st.DataObject, nudge: float
) -> None:
    """At a token's due time it is due; one step of a float before it is not."""
    plan = GenerationPlan(n, "stop", ttft_s, itl_s)
    due_s = plan.due_s(data.draw(st.integers(0, n)))
    elapsed_s = math.nextafter(due_s, nudge) if nudge else due_s
    assert plan.due_count(elapsed_s) == due_by_definition(plan, elapsed_s)


@pytest.mark.parametrize("itl_ms", [20, 50, 33.3, 0.1, 7])
def test_due_count_at_each_due_time(itl_ms: float) -> None:
    """At the exact due time of each of 1,000 tokens, that token is due."""
    plan = GenerationPlan(1000, "stop", 0.1, itl_ms / 1000)
    late = [i for i in range(1000) if plan.due_count(plan.due_s(i)) != i + 1]
    assert late == []


def request(**parameters: object) -> ChatCompletionRequest:
    """Return a valid request."""
    return ChatCompletionRequest.model_validate(chat(**parameters))


def plan(
    parameters: dict[str, object] | None = None,
    extra: dict[str, object] | None = None,
    **settings_: Any,  # noqa: ANN401 - each setting has a type of its own
) -> GenerationPlan:
    """Plan the generation for a request, headers and settings."""
    return plan_generation(
        chat_ask(request(**(parameters or {}))),
        EmulationHeaders.model_validate(extra or {}),
        Settings(**settings_),
    )


def test_settings_are_defaults() -> None:
    """Without headers the settings decide; milliseconds become seconds once."""
    planned = plan(ttft_ms=250, itl_ms=12.5, output_length=7)
    assert planned == GenerationPlan(7, "stop", 0.25, 0.0125, 1)


def test_headers_win_over_settings() -> None:
    """A header, be it zero, wins over its setting."""
    extra: dict[str, object] = {
        "X-TTFT-MS": "0",
        "X-ITL-MS": "0",
        "X-OUTPUT-LENGTH": "3",
        "X-SSE-BATCH-SIZE": "2",
    }
    assert plan({}, extra, ttft_ms=250, itl_ms=9) == GenerationPlan(3, "stop", 0, 0, 2)


@pytest.mark.parametrize(
    ("parameters", "header", "setting", "expected"),
    [
        ({}, None, 20, (20, "stop")),
        ({}, "9", 20, (9, "stop")),
        ({"max_tokens": 5}, None, 20, (5, "length")),
        ({"max_tokens": 5}, "9", 20, (5, "length")),
        ({"max_tokens": 9}, "9", 20, (9, "stop")),
        ({"max_tokens": 99}, "9", 20, (9, "stop")),
        ({"max_tokens": 3, "max_completion_tokens": 5}, "9", 20, (5, "length")),
        ({"max_tokens": 5, "max_completion_tokens": None}, "9", 20, (5, "length")),
        ({"ignore_eos": True}, None, 20, (20, "stop")),
        ({"ignore_eos": True}, "9", 20, (9, "stop")),
        ({"ignore_eos": True, "max_tokens": 99}, None, 20, (99, "length")),
        ({"ignore_eos": True, "max_tokens": 5}, None, 20, (5, "length")),
        ({"ignore_eos": True, "max_tokens": 99}, "9", 20, (9, "stop")),
        ({"ignore_eos": True, "max_tokens": 20}, None, 20, (20, "length")),
        ({"min_tokens": 30}, None, 20, (30, "stop")),
        ({"min_tokens": 30}, "9", 20, (30, "stop")),
        ({"min_tokens": 5}, "9", 20, (9, "stop")),
        ({"min_tokens": 0}, "9", 20, (9, "stop")),
        ({"min_tokens": 30, "max_tokens": 30}, "9", 20, (30, "stop")),
        ({"min_tokens": 30, "max_tokens": 40}, "50", 20, (40, "length")),
        ({"min_tokens": 30, "max_tokens": 40, "ignore_eos": True}, None, 20, (40, "length")),
        ({"max_tokens": 10**30}, "9", 20, (9, "stop")),
    ],
)
def test_length_rules(
    parameters: dict[str, object], header: str | None, setting: int, expected: tuple[int, str]
) -> None:
    """The length is the header's, else the setting's; the limit cuts it, min_tokens raises it."""
    extra: dict[str, object] = {} if header is None else {"X-OUTPUT-LENGTH": header}
    planned = plan(parameters, extra, output_length=setting)
    assert (planned.output_tokens, planned.finish_reason) == expected


@pytest.mark.parametrize(
    ("parameters", "extra", "param"),
    [
        ({}, {"X-OUTPUT-LENGTH": "101"}, "X-OUTPUT-LENGTH"),
        ({"min_tokens": 101}, {}, "min_tokens"),
        ({"max_tokens": 101, "ignore_eos": True}, {}, "max_tokens"),
        ({"max_completion_tokens": 101, "ignore_eos": True}, {}, "max_completion_tokens"),
        ({}, {"X-OUTPUT-LENGTH": "50", "X-REASONING-LENGTH": "51"}, "X-REASONING-LENGTH"),
        ({"reasoning_effort": "high"}, {}, "reasoning_effort"),
    ],
)
def test_longest_answer_of_the_server(
    parameters: dict[str, object], extra: dict[str, object], param: str
) -> None:
    """An answer longer than the server's limit is refused, naming what asked for it."""
    with pytest.raises(APIError, match="100") as caught:
        plan(parameters, extra, max_output_length=100, reasoning_lengths="high=81")
    assert (caught.value.status, caught.value.body.param) == (400, param)


def test_limit_cuts_reasoning_and_text_to_what_the_server_generates() -> None:
    """Of reasoning and text, what the client's limit leaves is compared with the server's."""
    extra: dict[str, object] = {"X-OUTPUT-LENGTH": "50", "X-REASONING-LENGTH": "60"}
    planned = plan({"max_tokens": 100}, extra, max_output_length=100)
    assert (planned.reasoning_tokens, planned.output_tokens) == (60, 40)


def test_limit_may_exceed_the_servers() -> None:
    """A client's own limit above the server's is no fault while the answer is shorter."""
    assert plan({"max_tokens": 5000}, max_output_length=100).output_tokens == 20


def test_min_tokens_above_the_limit() -> None:
    """A least length above the most is refused."""
    with pytest.raises(APIError) as caught:
        plan({"min_tokens": 6, "max_tokens": 5})
    assert (caught.value.status, caught.value.body.param) == (400, "min_tokens")


def asking(itl_ms: str, output_length: str) -> dict[str, object]:
    """Return headers that ask for this ITL and length, and no wait before them."""
    return {"X-TTFT-MS": "0", "X-ITL-MS": itl_ms, "X-OUTPUT-LENGTH": output_length}


def test_whole_answer_within_the_timeout() -> None:
    """A whole answer that is due before the timeout is planned."""
    assert plan({}, asking("500", "11"), timeout_s=5.5).total_s == 5


def test_whole_answer_after_the_timeout() -> None:
    """A whole answer that would be due when the timeout is over is refused at once."""
    refuse_beyond_timeout(plan({}, asking("500", "11")), timeout_s=5.5)
    with pytest.raises(APIError, match="stream"):
        refuse_beyond_timeout(plan({}, asking("500", "12")), timeout_s=5.5)


def test_streams_may_outlast_the_timeout() -> None:
    """The timeout is for the first byte, so that a stream may take longer."""
    assert plan({"stream": True}, asking("60000", "100"), timeout_s=5).total_s > 5


# --------------------------------------------------------------------------------------
# Settings
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ttft_ms", "-1"),
        ("ttft_ms", "600001"),
        ("ttft_ms", "nan"),
        ("itl_ms", "inf"),
        ("itl_ms", "60001"),
        ("output_length", "0"),
        ("output_length", "131073"),
        ("output_length", "many"),
        ("max_output_length", "131073"),
        ("max_output_length", "19"),
        ("models", ""),
        ("models", "a,,b"),
        ("strict_models", "perhaps"),
        ("workers", "0"),
        ("workers", "two"),
        ("timeout_s", "0"),
        ("timeout_s", "3601"),
        ("max_body_mb", "0"),
        ("max_body_mb", "nan"),
        ("colour", "blue"),
    ],
)
def test_bad_settings(name: str, value: str) -> None:
    """A setting that is unknown or out of its range is refused, and named."""
    with pytest.raises(ValidationError, match=name):
        Settings.model_validate({name: value})


def test_settings_from_text() -> None:
    """Settings are read from the text of ``--arg name=value``."""
    read_ = Settings.model_validate(
        {"ttft_ms": "12.5", "output_length": "7", "models": "a, b/c", "strict_models": "true"}
    )
    assert (read_.ttft_ms, read_.output_length) == (12.5, 7)
    assert (read_.models, read_.strict_models) == (("a", "b/c"), True)


def test_default_settings() -> None:
    """The defaults are those of the specification and the README."""
    assert Settings().model_dump(exclude={"models"}) == {
        "ttft_ms": 100,
        "ttft_jitter": None,
        "itl_jitter": None,
        "ready": True,
        "journal": True,
        "journal_bodies": False,
        "replicas": None,
        "routing": None,
        "control": "local",
        "control_key": None,
        "itl_ms": 50,
        "output_length": 20,
        "max_output_length": 131_072,
        "head": "accepted",
        "keepalive_ms": 0,
        "text": "english",
        "strict_models": False,
        "strict_parameters": False,
        "reasoning_lengths": {},
        "reasoning_content": False,
        "dialect": "openai",
        "vllm_flags": (),
        "traces": None,
        "rules": None,
        "unmatched": "corpus",
        "rules_header": True,
        "ignore_eos": False,
        "lenient": False,
        "engine": None,
        "startup_s": 0,
        "fault_headers": True,
        "rpm": None,
        "tpm": None,
        "limits": None,
        "api_keys": None,
        "store": "memory",
        "workers": None,
        "timeout_s": 300,
        "keep_alive_s": 120,
        "max_body_mb": 50,
        "helpers": 2,
        "timer_slack_us": 0,
        "cors_origins": ("*",),
    }
