"""smolagents: its model class, and an agent that calls tools."""

import pytest
from pydantic import BaseModel
from smolagents import ChatMessage, OpenAIModel, Tool, ToolCallingAgent
from smolagents.models import MessageRole

ASKED = [ChatMessage(role=MessageRole.USER, content="What is the weather?")]


class Weather(Tool):  # type: ignore[misc]  # not installed here
    """A tool that counts its calls."""

    name = "weather"
    description = "Tell the weather of a city."
    inputs = {"city": {"type": "string", "description": "Which city."}}  # noqa: RUF012 - as smolagents wants it
    output_type = "string"
    calls = 0

    def forward(self, city: str) -> str:
        """Tell the weather."""
        self.calls += 1
        return f"sunny in {city}"


class Forecast(BaseModel):
    """What a schema asks for."""

    city: str
    degrees: float
    days: list[int]


@pytest.fixture
def model(base_url: str) -> OpenAIModel:
    """Return a model of the emulator."""
    return OpenAIModel(model_id="gpt-4o", api_base=base_url, api_key="dummy-key", seed=1)


def test_text_is_the_same_whole_and_streamed(model: OpenAIModel) -> None:
    """A stream adds up to the whole answer."""
    deltas = [delta.content for delta in model.generate_stream(ASKED) if delta.content]
    assert len(deltas) == 20
    assert "".join(deltas) == model.generate(ASKED).content


def test_schema(model: OpenAIModel) -> None:
    """A response format is followed."""
    schema = Forecast.model_json_schema() | {"additionalProperties": False}
    named = {"name": "forecast", "schema": schema, "strict": True}
    answer = model.generate(ASKED, response_format={"type": "json_schema", "json_schema": named})
    Forecast.model_validate_json(answer.content)


def test_tool_is_called(model: OpenAIModel) -> None:
    """The one tool is called, with an argument of its type."""
    tool = Weather()
    call = model.generate(ASKED, tools_to_call_from=[tool]).tool_calls[0]
    assert call.function.name == "weather"


def test_agent_ends(model: OpenAIModel) -> None:
    """An agent, which tells of its calls in user messages, calls its tool and gives its answer."""
    tool = Weather()
    agent = ToolCallingAgent(tools=[tool], model=model, max_steps=4, verbosity_level=0)
    agent.run("What is the weather?")
    assert tool.calls == 1
    assert agent.memory.steps[-1].is_final_answer


def test_failure_is_retried(base_url: str) -> None:
    """What fails once is asked for again."""
    fails = {"X-FAULT-STATUS": "503", "X-FAULT-ATTEMPTS": "1", "X-FAULT-RETRY-AFTER-MS": "10"}
    more = {"client_kwargs": {"default_headers": fails}, "api_base": base_url}
    assert OpenAIModel(model_id="gpt-4o", api_key="dummy-key", **more).generate(ASKED).content
