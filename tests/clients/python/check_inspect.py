"""Inspect: evaluations with generation, tools and structured output, over chat and Responses."""

import asyncio
from pathlib import Path

import pytest
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import GenerateConfig, Model, ResponseSchema, get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import Solver, generate, use_tools
from inspect_ai.tool import Tool, tool
from inspect_ai.util import json_schema
from pydantic import BaseModel

APIS = [False, True]


class Forecast(BaseModel):
    """What a schema asks for."""

    city: str
    degrees: float
    days: list[int]


CITIES: list[str] = []


@tool  # type: ignore[untyped-decorator]  # not installed here
def weather() -> Tool:
    """Return a tool that notes its calls."""

    async def execute(city: str) -> str:
        """Tell the weather of a city.

        Args:
            city: Which city.
        """
        CITIES.append(city)
        return "sunny"

    return execute


def model(base_url: str, api: object, **headers: str) -> Model:
    """Return a model that speaks chat completions, or Responses."""
    sent = GenerateConfig(extra_headers=headers, max_retries=2)
    more = {"responses_api": api, "memoize": False}
    return get_model("openai/gpt-4o", base_url=base_url, config=sent, **more)


def evaluated(asked: Model, folder: Path, *solvers: Solver) -> EvalLog:
    """Evaluate a model by two questions."""
    samples = [Sample(input=text, target="the") for text in ("What is it?", "Where is it?")]
    task = Task(dataset=samples, solver=[*solvers, generate()], scorer=includes())
    (log,) = eval(task, model=asked, log_dir=str(folder), display="none")
    return log


@pytest.mark.parametrize("api", APIS)
def test_evaluation(base_url: str, api: object, tmp_path: Path) -> None:
    """Each question is answered, scored, and its usage is noted."""
    log = evaluated(model(base_url, api), tmp_path)
    assert log.status == "success"
    assert log.results.completed_samples == 2
    assert log.stats.model_usage["openai/gpt-4o"].output_tokens == 40


@pytest.mark.parametrize("api", APIS)
def test_tools(base_url: str, api: object, tmp_path: Path) -> None:
    """A tool is called once for each question, and an answer follows."""
    CITIES.clear()
    asked = model(base_url, api, **{"X-TOOL-CALLS": "1"})
    log = evaluated(asked, tmp_path, use_tools(weather()))
    assert log.status == "success"
    assert len(CITIES) == 2
    assert all(sample.output.completion for sample in log.samples)


@pytest.mark.parametrize("api", APIS)
def test_structured_output(base_url: str, api: object) -> None:
    """An answer follows the response's schema."""
    schema = ResponseSchema(name="forecast", json_schema=json_schema(Forecast), strict=True)
    asked = model(base_url, api).generate("hi", config=GenerateConfig(response_schema=schema))
    Forecast.model_validate_json(asyncio.run(asked).completion)


@pytest.mark.parametrize("api", APIS)
def test_failure_is_retried(base_url: str, api: object, tmp_path: Path) -> None:
    """What fails at first is asked for again."""
    fails = {"X-FAULT-STATUS": "503", "X-FAULT-ATTEMPTS": "1", "X-FAULT-KEY": f"{tmp_path}"}
    assert evaluated(model(base_url, api, **fails), tmp_path).status == "success"


def test_failure(base_url: str, tmp_path: Path) -> None:
    """What cannot be asked for again ends the evaluation with an error."""
    fails = model(base_url, False, **{"X-FAULT-STATUS": "401"})
    assert evaluated(fails, tmp_path).status == "error"
