"""DSPy, which asks through LiteLLM: language models, signatures, embeddings, failures."""

import asyncio
import os
from typing import Any

import dspy
import pytest

FAILS = {"X-FAULT-STATUS": "503", "X-FAULT-RETRY-AFTER-MS": "10"}


class Forecast(dspy.Signature):  # type: ignore[misc]  # not installed here
    """Tell the weather."""

    question: str = dspy.InputField()
    city: str = dspy.OutputField()
    degrees: float = dspy.OutputField()
    days: list[int] = dspy.OutputField()


def model(base_url: str, **more: object) -> dspy.LM:
    """Return a language model that keeps nothing."""
    options = {"api_base": base_url, "api_key": "dummy-key", "cache": False, "num_retries": 0}
    return dspy.LM("openai/gpt-4o", **(options | more))


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_text(base_url: str, api: str) -> None:
    """A model answers by chat and by Responses."""
    (answer,) = model(base_url, model_type=api)("What is the weather?")
    text = answer["text"] if isinstance(answer, dict) else answer
    assert len(text.split()) > 5


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_signature(base_url: str, api: str) -> None:
    """The fields of a signature come from an answer by its schema."""
    with dspy.context(lm=model(base_url, model_type=api), adapter=dspy.JSONAdapter()):
        answer = dspy.Predict(Forecast)(question="What is the weather?")
    assert answer.city
    assert isinstance(answer.degrees, float)
    assert all(isinstance(day, int) for day in answer.days)


def test_streaming(base_url: str) -> None:
    """A streamed program hands out the chunks of its answer."""

    async def collect() -> list[Any]:
        with dspy.context(lm=model(base_url), adapter=dspy.JSONAdapter()):
            program = dspy.streamify(dspy.Predict(Forecast))
            return [part async for part in program(question="What is the weather?")]

    *chunks, last = asyncio.run(collect())
    assert len(chunks) > 5
    assert last.city


def test_tools(base_url: str) -> None:
    """A field of tool calls is filled by the API's own calls."""

    def weather(city: str) -> str:
        """Tell the weather of a city."""
        return f"sunny in {city}"

    asked = dspy.Signature("question: str, tools: list[dspy.Tool] -> calls: dspy.ToolCalls")
    lm = model(base_url, extra_headers={"X-TOOL-CALLS": "1"})
    with dspy.context(lm=lm, adapter=dspy.JSONAdapter(use_native_function_calling=True)):
        answer = dspy.Predict(asked)(question="hi", tools=[dspy.Tool(weather)])
    (call,) = answer.calls.tool_calls
    assert call.name == "weather"
    assert call.args["city"]


def test_embeddings(base_url: str) -> None:
    """Texts become vectors."""
    name = "openai/text-embedding-3-small"
    embedder = dspy.Embedder(name, caching=False, api_base=base_url, api_key="dummy-key")
    assert embedder(["a cat", "a dog"]).shape == (2, 1536)


def test_failure(base_url: str) -> None:
    """What fails is an exception."""
    with pytest.raises(Exception, match="The server"):
        model(base_url, extra_headers=FAILS)("hi")


def test_failure_is_retried(base_url: str) -> None:
    """What fails once is asked for again."""
    once = FAILS | {"X-FAULT-ATTEMPTS": "1", "X-FAULT-KEY": os.urandom(8).hex()}
    assert model(base_url, extra_headers=once, num_retries=2)("hi")
