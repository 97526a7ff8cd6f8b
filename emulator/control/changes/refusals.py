"""Errors of control in OpenAI's envelope: a field's path, what was expected and what came."""

import difflib
from collections.abc import Callable, Container, Iterable, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from emulator.contract.error_words import (
    fault_error,
    path_of,
    shown,
    unknown_parameter,
)
from emulator.contract.errors import APIError
from emulator.yaml_files import fields_at


def refused_at(place: Sequence[int | str], problem: str) -> APIError:
    """Refuse the value of a field; `problem` says what was expected and what came."""
    param = path_of(place)
    subject = f"Invalid '{param}'" if param else "Invalid body"
    return APIError(f"{subject}: {problem.rstrip('.')}.", param=param or None, code="invalid_value")


def unknown_name(name: str, known: Iterable[str], what: str, param: str) -> APIError:
    """Refuse, with 404, a name that nothing has; tell the nearest that something has."""
    return APIError(
        f"No {what} has the name '{shown(name)}'.{_nearest(name, known)}",
        status=404,
        param=param,
        code=f"{what}_not_found",
    )


def first_fault(
    error: ValidationError,
    model: type[BaseModel] | TypeAdapter[Any],
    place: Callable[[Sequence[int | str]], Sequence[int | str]] = tuple,
) -> APIError:
    """Turn the first fault that pydantic found into an error.

    Args:
        error: What it found.
        model: What was expected.
        place: Returns where something stands in the body; it is given its place in the model.
    """
    fault = error.errors(include_url=False)[0]
    where = place(fault["loc"])
    if fault["type"] == "extra_forbidden":
        return _unknown_field(where, fields_at(_schema(model), fault["loc"][:-1]))
    if fault["type"] in ("value_error", "assertion_error"):
        fields = () if isinstance(model, TypeAdapter) else model.model_fields
        return _broken_rule(where, str(fault["ctx"]["error"]), fields)
    if fault["type"] == "literal_error" and not isinstance(fault["input"], str):
        return refused_at(
            where, f"expected {fault['ctx']['expected']}, but got {fault['input']!r:.64}"
        )
    return fault_error(fault, path_of(where))


@cache
def _schema(model: type[BaseModel] | TypeAdapter[Any]) -> dict[str, Any]:
    """Return the JSON Schema of a model, which takes 20 ms."""
    adapter = model if isinstance(model, TypeAdapter) else TypeAdapter(model)
    return adapter.json_schema()


def _unknown_field(where: Sequence[int | str], known: Sequence[str]) -> APIError:
    found = unknown_parameter(path_of(where))
    found.body.message += _nearest(str(where[-1]), known)
    return found


def _nearest(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, [*known], n=1, cutoff=0.0)
    return f" Did you mean '{nearest[0]}'?" if nearest else ""


def _broken_rule(where: Sequence[int | str], problem: str, fields: Container[str]) -> APIError:
    """Refuse a rule that contradicts itself; a message may begin with the field's name."""
    first = problem.partition(" ")[0]
    return refused_at((*where, first) if first in fields else where, problem)
