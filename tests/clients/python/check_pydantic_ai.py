"""pydantic-ai: ``openai:``, which speaks Responses, and ``openai-chat:``."""

import asyncio

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.models import infer_model
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel

MODELS = ["openai:gpt-4o", "openai-chat:gpt-4o"]


class Forecast(BaseModel):
    """What an agent is to answer."""

    city: str
    degrees: float
    days: list[int]


def weather(city: str) -> str:
    """Tell the weather of a city."""
    CITIES.append(city)
    return "sunny"


def traffic(city: str) -> str:
    """Tell the traffic of a city."""
    CITIES.append(city)
    return "light"


CITIES: list[str] = []


@pytest.fixture(autouse=True)
def no_cities() -> None:
    """Forget what other tests have called."""
    CITIES.clear()


def test_model_classes() -> None:
    """The two names stand for the two APIs."""
    responses, chat = map(infer_model, MODELS)
    assert isinstance(responses, OpenAIResponsesModel)
    assert isinstance(chat, OpenAIChatModel)


@pytest.mark.parametrize("model", MODELS)
def test_text(model: str) -> None:
    """An agent answers, and its usage is counted."""
    result = Agent(model).run_sync("hi")
    assert len(result.output.split()) > 5
    assert result.usage.output_tokens == 20


@pytest.mark.parametrize("model", MODELS)
def test_output_type_with_tools(model: str) -> None:
    """An agent that must end with its output tool calls its other tools once, and ends."""
    agent = Agent(model, output_type=Forecast, tools=[weather, traffic])
    result = agent.run_sync("What is the weather?")
    assert isinstance(result.output, Forecast)
    assert len(CITIES) == 2


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("way", [ToolOutput, NativeOutput, PromptedOutput])
def test_output_of_each_kind(model: str, way: type) -> None:
    """A pydantic model is had by a tool, by a schema as format, and by a schema in the prompt."""
    result = Agent(model, output_type=way(Forecast)).run_sync("What is the weather?")
    assert isinstance(result.output, Forecast)


@pytest.mark.parametrize("model", MODELS)
def test_streaming(model: str) -> None:
    """A stream's deltas are the tokens, and add up to the output."""

    async def collect() -> tuple[list[str], str]:
        async with Agent(model).run_stream("hi") as result:
            deltas = [delta async for delta in result.stream_text(delta=True, debounce_by=None)]
            return deltas, await result.get_output()

    deltas, output = asyncio.run(collect())
    assert len(deltas) == 20
    assert "".join(deltas) == output


@pytest.mark.parametrize("model", MODELS)
def test_streamed_output_type(model: str) -> None:
    """A model with parts is built up while it is streamed."""

    async def collect() -> object:
        agent = Agent(model, output_type=Forecast)
        async with agent.run_stream("What is the weather?") as result:
            return await result.get_output()

    assert isinstance(asyncio.run(collect()), Forecast)
