"""openai-agents with its default model class, which speaks the Responses API."""

import asyncio

import pytest
from agents import (
    Agent,
    ItemHelpers,
    ModelSettings,
    Runner,
    RunResult,
    function_tool,
    set_tracing_disabled,
)
from agents.models.multi_provider import MultiProvider
from agents.models.openai_responses import OpenAIResponsesModel
from pydantic import BaseModel

set_tracing_disabled(True)

MODEL = "gpt-4o"


class Forecast(BaseModel):
    """What an agent is to answer."""

    city: str
    degrees: float
    days: list[int]


def calling(times: list[str]) -> object:
    """Return a tool that notes when it is called."""

    def weather(city: str) -> str:
        """Tell the weather of a city."""
        times.append(city)
        return "sunny"

    return function_tool(weather)


# One loop for all: the package keeps one client for as long as it is loaded.
LOOP = asyncio.Runner()


def run(agent: object, prompt: str = "What is the weather?") -> RunResult:
    """Run an agent to its end."""
    return LOOP.run(Runner.run(agent, prompt, max_turns=5))


def test_default_model_class() -> None:
    """By default a model speaks the Responses API."""
    assert isinstance(MultiProvider().get_model(MODEL), OpenAIResponsesModel)


def test_text() -> None:
    """An agent answers."""
    result = run(Agent(name="a", model=MODEL, instructions="Be brief."))
    assert len(result.final_output.split()) > 5


def test_tool_is_called_and_the_agent_ends() -> None:
    """A required tool is called once, and text follows."""
    cities: list[str] = []
    settings = ModelSettings(tool_choice="required")
    agent = Agent(name="a", model=MODEL, tools=[calling(cities)], model_settings=settings)
    result = run(agent)
    assert len(cities) == 1
    assert isinstance(result.final_output, str)


def test_calls_asked_for_with_every_request() -> None:
    """With X-TOOL-CALLS in every request, as a client's default header, the agent ends too."""
    cities: list[str] = []
    settings = ModelSettings(extra_headers={"X-TOOL-CALLS": "2"})
    agent = Agent(name="a", model=MODEL, tools=[calling(cities)], model_settings=settings)
    assert isinstance(run(agent).final_output, str)
    assert len(cities) == 2


def test_handoff() -> None:
    """An agent hands over to another, which answers."""
    other = Agent(name="other", model=MODEL, instructions="Be brief.")
    first = Agent(
        name="first",
        model=MODEL,
        handoffs=[other],
        model_settings=ModelSettings(tool_choice="required"),
    )
    result = run(first)
    assert result.last_agent.name == "other"
    assert result.final_output


@pytest.mark.parametrize("with_tool", [False, True])
def test_output_type(with_tool: object) -> None:
    """The answer is an instance of the agent's output type, with and without a tool before it."""
    cities: list[str] = []
    agent = Agent(
        name="a",
        model=MODEL,
        output_type=Forecast,
        tools=[calling(cities)] if with_tool else [],
        model_settings=ModelSettings(tool_choice="required" if with_tool else None),
    )
    assert isinstance(run(agent).final_output, Forecast)
    assert len(cities) == (1 if with_tool else 0)


def test_streaming() -> None:
    """A streamed run tells of the tool and of each token, and adds up to the final output."""
    cities: list[str] = []
    settings = ModelSettings(tool_choice="required")
    agent = Agent(name="a", model=MODEL, tools=[calling(cities)], model_settings=settings)

    async def collect() -> tuple[list[str], list[str], object]:
        result = Runner.run_streamed(agent, "What is the weather?", max_turns=5)
        deltas, items = [], []
        async for event in result.stream_events():
            if event.type == "raw_response_event":
                if event.data.type == "response.output_text.delta":
                    deltas.append(event.data.delta)
            elif event.type == "run_item_stream_event":
                items.append(event.name)
                if event.name == "message_output_created":
                    assert ItemHelpers.text_message_output(event.item) == "".join(deltas)
        return deltas, items, result.final_output

    deltas, items, final = LOOP.run(collect())
    assert len(deltas) == 20
    assert "".join(deltas) == final
    assert items == ["tool_called", "tool_output", "message_output_created"]
    assert len(cities) == 1
