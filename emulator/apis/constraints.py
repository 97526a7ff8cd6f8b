"""Guided decoding as vLLM has it: what a text has to be, by ``structured_outputs`` and the like."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic_core import from_json

from emulator.answers.composing import JSON_OBJECT_SCHEMA
from emulator.contract.bodies import GenerationRequest
from emulator.contract.errors import APIError

OLDER = ("guided_json", "guided_regex", "guided_choice", "guided_grammar")
# The parameters that say it; few requests have one.
PARAMETERS = frozenset(("structured_outputs", *OLDER))
KINDS = ("json", "json_object", "regex", "choice", "grammar", "structural_tag")


class Constraint(NamedTuple):
    """What a text has to be.

    Args:
        schema: The schema that it satisfies.
        param: The path in the body, for errors.
        is_text: Whether the text is a string by itself, not JSON.
    """

    schema: dict[str, Any]
    param: str
    is_text: bool


def constraint_of(body: GenerationRequest) -> Constraint | None:
    """Return what the text of an answer has to be, None if anything will do.

    Raises:
        APIError: More than one thing is asked for, or one that cannot be made.
    """
    if PARAMETERS.isdisjoint(body.model_fields_set):
        return None
    asked = list(_asked(body))
    if len(asked) > 1:
        raise two_constraints(asked[1][0])
    if not asked and body.structured_outputs is None:
        return None
    if not asked:
        raise APIError(
            "You must use one kind of structured outputs constraint but none are specified.",
            param="structured_outputs",
        )
    [(param, kind, value)] = asked
    return _constraint(param, kind, value)


def two_constraints(param: str) -> APIError:
    """Refuse a second thing that a text has to be."""
    return APIError(
        "You can only use one kind of constraints for structured outputs ('json', 'regex' or "
        "'choice').",
        param=param,
    )


def _asked(body: GenerationRequest) -> Iterator[tuple[str, str, Any]]:
    """Yield path, kind and value of all that a body asks for."""
    outputs = body.structured_outputs
    if outputs is not None:
        for kind in KINDS:
            value = getattr(outputs, "json_" if kind == "json" else kind)
            if value is not None and value is not False:
                yield f"structured_outputs.{kind}", kind, value
    for name in OLDER:
        if (value := getattr(body, name)) is not None:
            yield name, name.removeprefix("guided_"), value


def _constraint(param: str, kind: str, value: Any) -> Constraint:  # noqa: ANN401 - of the kind
    match kind:
        case "json":
            return Constraint(_schema(value, param), param, is_text=False)
        case "json_object":
            return Constraint(JSON_OBJECT_SCHEMA, param, is_text=False)
        case "regex":
            pattern = {"type": "string", "pattern": f"^(?:{value})$"}
            return Constraint(pattern, param, is_text=True)
        case "choice":
            return Constraint({"enum": value}, param, is_text=True)
        case _:
            raise APIError(
                f"Unsupported parameter: '{param}' is not supported by this emulator. Use 'json', "
                "'json_object', 'regex' or 'choice' instead.",
                param=param,
                code="unsupported_parameter",
            )


def _schema(value: dict[str, Any] | str, param: str) -> dict[str, Any]:
    try:
        schema = from_json(value, allow_inf_nan=False) if isinstance(value, str) else value
    except ValueError:
        schema = None
    if not isinstance(schema, dict):
        raise APIError(
            f"Invalid '{param}': expected a JSON schema as an object or as a text.",
            param=param,
            code="invalid_value",
        )
    return schema
