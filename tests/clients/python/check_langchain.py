"""LangChain: create_agent, structured output in each way, streams and embeddings."""

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

APIS = [False, True]


class Forecast(BaseModel):
    """What an agent is to answer."""

    city: str
    degrees: float
    days: list[int]


def model(api: object) -> ChatOpenAI:
    """Return a model that speaks chat completions, or Responses."""
    return ChatOpenAI(model="gpt-4o", use_responses_api=api, stream_usage=True)


@pytest.mark.parametrize("api", APIS)
def test_streaming(api: object) -> None:
    """A stream adds up to a text with its usage."""
    chunks = list(model(api).stream("hi"))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert len([chunk for chunk in chunks if chunk.text]) == 20
    assert whole.usage_metadata["output_tokens"] == 20


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("strategy", [ToolStrategy, ProviderStrategy])
def test_agent_with_a_response_format(api: object, strategy: type) -> None:
    """An agent that must end with a tool of its response format calls its other tool, and ends."""
    cities: list[str] = []

    def weather(city: str) -> str:
        """Tell the weather of a city."""
        cities.append(city)
        return "sunny"

    agent = create_agent(model(api), tools=[weather], response_format=strategy(Forecast))
    state = agent.invoke({"messages": [{"role": "user", "content": "What is the weather?"}]})
    assert isinstance(state["structured_response"], Forecast)
    assert len(cities) == (1 if strategy is ToolStrategy else 0)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_structured_output(api: object, method: str) -> None:
    """A pydantic model is had by a function and by a schema."""
    answer = model(api).with_structured_output(Forecast, method=method).invoke("What is it?")
    assert isinstance(answer, Forecast)


@pytest.mark.parametrize("api", APIS)
def test_json_mode(api: object) -> None:
    """A schema that stands in the prompt is followed."""
    asked = f"Answer in JSON that satisfies {Forecast.model_json_schema()}.".replace("'", '"')
    answer = model(api).with_structured_output(Forecast, method="json_mode").invoke(asked)
    assert isinstance(answer, Forecast)


def test_embeddings() -> None:
    """Texts that share words are nearer to each other than texts that do not."""
    embeddings = OpenAIEmbeddings(model="text-embedding-3-small", check_embedding_ctx_length=False)
    near, same, far = embeddings.embed_documents(
        ["The cat sat on the mat", "A cat on a mat", "Quarterly revenue rose"]
    )

    def likeness(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert len(near) == 1536
    assert likeness(near, same) > likeness(near, far)
