"""POST /v1/moderations: what is flagged, the shapes of its models, and what it costs others."""

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types import ModerationCreateResponse

from emulator.contract.moderation import CATEGORIES, OF_IMAGES, OLD_CATEGORIES
from schemas import ModerationList
from tests.support.reference import watched_machine
from tests.support.sdk import message_of, refused
from tests.support.server import Server, args, eventually, running_server
from tests.support.wire import Post, chat, headers, post_together, token_count

PATH = "/v1/moderations"
OMNI, OLD = "omni-moderation-latest", "text-moderation-latest"
PICTURE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
TEXT = {"type": "text", "text": "I want to kill the apple."}
BOTH = [TEXT, PICTURE]


def moderate(http: httpx.Client, inputs: object, **more: object) -> dict[str, Any]:
    """Return the answer to a request for moderations, which is as its schema says."""
    answer = http.post(PATH, json={"input": inputs, **more}, headers=headers())
    assert answer.status_code == 200, answer.text
    ModerationList.model_validate(answer.json(), strict=True)
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture(scope="module")
def limited(local_only: None) -> Iterator[httpx.Client]:  # noqa: ARG001 - skips
    """Yield a client of a server with limits, and with no other models than those it lists."""
    settings = args(workers=1, rpm=1000, tpm=1_000_000, strict_models=True, models="m1,m3000")
    with (
        running_server(*settings) as server,
        httpx.Client(base_url=server.url, timeout=30, trust_env=False) as http,
    ):
        yield http


# --------------------------------------------------------------------------------------
# Results
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "results"),
    [("hi", 1), ("", 1), (["hi"], 1), (["a", "b", "a"], 3), ([TEXT], 1), (BOTH, 1), ([PICTURE], 1)],
    ids=str,
)
@pytest.mark.parametrize("model", [None, OMNI, "omni-moderation-2024-09-26"])
def test_nothing_is_flagged(
    http: httpx.Client, model: str | None, inputs: object, results: int
) -> None:
    """Each text has a result, all parts have one together, and none says that anything is wrong."""
    answer = moderate(http, inputs, model=model)
    assert (answer["id"][:5], answer["model"]) == ("modr-", model or OMNI)
    assert len(answer["results"]) == results
    for result in answer["results"]:
        assert not result["flagged"]
        assert result["categories"] == dict.fromkeys(CATEGORIES, False)
        assert set(result["category_scores"]) == set(CATEGORIES)
        assert all(0 < score < 0.0011 for score in result["category_scores"].values())


def test_shape_is_openais(client: openai.OpenAI, http: httpx.Client) -> None:
    """The official client's types hold all of an answer, and nothing of it is unknown to them."""
    answer = ModerationCreateResponse.model_validate(moderate(http, BOTH))
    [result] = answer.results
    parts = (result.categories, result.category_scores, result.category_applied_input_types)
    assert [part.model_extra for part in (answer, result, *parts)] == [{}] * 5
    create: Any = client.moderations.create
    assert create(input=BOTH, extra_headers=headers()).results[0].categories.violence is False


@pytest.mark.parametrize(
    ("inputs", "of_texts", "of_both"),
    [("x", ["text"], ["text"]), (BOTH, ["text"], ["text", "image"]), ([PICTURE], [], ["image"])],
    ids=str,
)
def test_types_of_input(
    http: httpx.Client, inputs: object, of_texts: list[str], of_both: list[str]
) -> None:
    """Each category tells which types of input it looked at: of pictures some do."""
    [result] = moderate(http, inputs)["results"]
    assert result["category_applied_input_types"] == {
        name: of_both if name in OF_IMAGES else of_texts for name in CATEGORIES
    }


@pytest.mark.parametrize("model", [OLD, "text-moderation-stable"])
def test_older_models(http: httpx.Client, model: str) -> None:
    """The older models have fewer categories, and do not tell the types of input."""
    answer = moderate(http, ["a", "b"], model=model)
    assert answer["model"] == "text-moderation-007"
    for result in answer["results"]:
        assert set(result) == {"flagged", "categories", "category_scores"}
        assert set(result["categories"]) == set(result["category_scores"]) == set(OLD_CATEGORIES)


def test_scores_follow_from_the_text(http: httpx.Client, two_workers: Server) -> None:
    """The same text has the same scores in any list and process, and another has others."""
    first, other, again = moderate(http, ["a", "b", "a"])["results"]
    assert first == again != other
    with httpx.Client(base_url=two_workers.url, trust_env=False) as elsewhere:
        assert moderate(elsewhere, "a")["results"] == [first]


# --------------------------------------------------------------------------------------
# What is flagged
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        ({"emulation": {"flagged": ["violence", "self-harm/intent"]}}, {}),
        ({"emulation": {"flagged": "violence,self-harm/intent"}}, {}),
        ({}, {"X-FLAGGED": "self-harm/intent, violence"}),
        ({"emulation": {"flagged": ["hate"]}}, {"X-FLAGGED": "self-harm/intent, violence"}),
    ],
    ids=str,
)
def test_flagged(http: httpx.Client, body: dict[str, Any], asked: dict[str, str]) -> None:
    """What a header or the body names is flagged in each result, with a score close to 1."""
    sent = {"input": ["a", "b"], **body}
    for result in http.post(PATH, json=sent, headers=headers() | asked).json()["results"]:
        assert result["flagged"]
        found = {name for name, is_flagged in result["categories"].items() if is_flagged}
        assert found == {"violence", "self-harm/intent"}
        likely = {name for name, score in result["category_scores"].items() if 0.8 <= score < 1}
        assert likely == found


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"emulation": {"flagged": ["violent"]}}, "emulation.flagged", "violence/graphic"),
        ({"emulation": {"flagged": [5]}}, "emulation.flagged", "string or array of strings"),
        ({"emulation": {"flagged": []}}, "emulation.flagged", "categories with commas"),
        ({"emulation": {"ttft_ms": ["5"]}}, "emulation.ttft_ms", "number, string or boolean"),
        ({"emulation": {"flagged": "illicit"}, "model": OLD}, "emulation.flagged", f"of {OLD}"),
    ],
    ids=str,
)
def test_what_cannot_be_flagged(
    client: openai.OpenAI, body: dict[str, object], param: str, said: str
) -> None:
    """What is no category, or none of the model's, is a 400 that names where it stands."""
    error = refused(client, {"input": "x", **body}, "/moderations")
    assert (error.status_code, error.param) == (400, param)
    assert said in message_of(error)


# --------------------------------------------------------------------------------------
# Requests
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "input", "missing_required_parameter"),
        ({"input": None}, "input", "invalid_type"),
        ({"input": 5}, "input", "invalid_type"),
        ({"input": []}, "input", "empty_array"),
        ({"input": ["a"] * 2049}, "input", "array_above_max_length"),
        ({"input": ["a", 5]}, "input[1]", "invalid_type"),
        ({"input": ["a", TEXT]}, "input", "invalid_type"),
        ({"input": [{"type": "audio"}]}, "input[0].type", "invalid_value"),
        ({"input": [{"type": "text"}]}, "input[0].text", "missing_required_parameter"),
        ({"input": [PICTURE, PICTURE]}, "input", "too_many_images"),
        ({"input": [TEXT], "model": OLD}, "input", "invalid_type"),
        ({"input": [{"type": "image_url", "image_url": {"url": "x"}}]}, "input[0].image_url.url",
         "invalid_image_url"),
        ({"input": "x", "model": 5}, "model", "invalid_type"),
        ({"input": "x", "model": ""}, None, None),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_bad_requests(
    client: openai.OpenAI, body: dict[str, object], param: str | None, code: str | None
) -> None:
    """A fault is a 400 that names the field."""
    error = refused(client, body, "/moderations")
    assert (error.status_code, error.param, error.code) == (400, param, code)


def test_answers_after_the_asked_time(http: httpx.Client) -> None:
    """The answer leaves after X-TTFT-MS, as its report says."""
    asked = {"X-TTFT-MS": "150", "X-EMULATION-REPORT": "true"}
    answer = http.post(PATH, json={"input": "x"}, headers=asked)
    report = answer.json()["emulation"]["total_ms"]
    assert answer.elapsed.total_seconds() >= 0.15
    assert report["asked"] == 150
    assert report["actual"] >= 150


@pytest.mark.parametrize("count", [1, 3000])
def test_limits(limited: httpx.Client, count: int) -> None:
    """Limits charge the request and the tokens of its texts, in helpers too."""
    texts = [f"some words {number}" for number in range(min(count, 2048))]
    model = f"m{count}"
    answer = limited.post(PATH, json={"input": texts, "model": model}, headers=headers())
    tokens = sum(token_count(text, "o200k_base") for text in texts)
    assert answer.status_code == 200
    assert answer.headers["x-ratelimit-remaining-requests"] == "999"
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) == 1_000_000 - tokens
    assert len(answer.json()["results"]) == len(texts)


def test_models_of_openai_are_always_there(limited: httpx.Client) -> None:
    """Where unknown models are refused, OpenAI's own of moderations are not."""
    statuses = [
        limited.post(PATH, json={"input": "x", "model": model}, headers=headers()).status_code
        for model in (None, OMNI, OLD, "mine")
    ]
    assert statuses == [200, 200, 200, 404]


def test_log_line(logged_server: Server, http: httpx.Client) -> None:
    """The log tells of each request, and nothing of what it holds."""
    moderate(http, ["secret words"] * 7)
    line = f'moderations model="{OMNI}" status=200 inputs=7 total_ms='
    assert eventually(lambda: line in logged_server.log())
    assert "secret words" not in logged_server.log()


def test_many_inputs_spare_a_paced_stream(one_worker: Server) -> None:
    """No 2,048 texts keep another stream's token waiting for 10 ms."""
    paced = Post(chat(stream=True), {**headers(0, 2, 200), "X-EMULATION-REPORT": "true"})

    def own_lag_ms() -> float:
        """Return the worst lag of the paced stream beyond what the machine itself did."""
        results: list[int] = []

        def moderate_many() -> None:
            with httpx.Client(base_url=one_worker.url, timeout=60, trust_env=False) as http:
                for count in (1000, 2048):
                    inputs = ["word"] * count
                    results.append(len(moderate(http, inputs)["results"]))

        with watched_machine() as machine:
            [answer] = post_together(one_worker.address, [paced], meanwhile=moderate_many)
        assert results == [1000, 2048]
        return float(answer.report["worst_lag_ms"]) - machine.worst_s * 1000

    assert any(own_lag_ms() < 10 for _ in range(5))
