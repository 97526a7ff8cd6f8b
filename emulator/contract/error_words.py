"""Pydantic's errors in OpenAI's words: one table from error type to message and code."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from emulator.contract.errors import APIError

# Nobody knows when there is room: the least that `retry-after` can say.
RETRY_AFTER_S = 1
MAX_SHOWN = 128  # characters of a client's text in a message
MAX_PATH_SHOWN = 256

PLACES = "emulation_places"  # the key of a request's scope for where headers came from
_HEADER = re.compile(r"\bX(?:-[A-Z]+)+")

Rule: TypeAlias = Callable[[ErrorDetails, str], APIError]


def request_error(error: ValidationError) -> APIError:
    """Turn the first fault of a request body into OpenAI's error for it."""
    details = min(error.errors(include_url=False), key=_rank)
    return fault_error(details, path_of(details["loc"]))


def fault_error(details: ErrorDetails, param: str) -> APIError:
    """Turn one fault of the value at a path into OpenAI's error for it."""
    return RULES.get(details["type"], _other)(details, param)


def _rank(error: ErrorDetails) -> int:
    """Put the model first, then the prompt, then the rest in the schema's order."""
    return {"model": 0, "messages": 1, "input": 1}.get(
        str(error["loc"][0]) if error["loc"] else "", 2
    )


def header_error(error: ValidationError, model: type[BaseModel]) -> APIError:
    """Turn the first fault of the X-* headers into an error that names range and value."""
    details = error.errors(include_url=False)[0]
    name = str(details["loc"][0])
    field = next(field for field in model.model_fields.values() if field.alias == name)
    bounds = [
        getattr(rule, key) for key in ("ge", "le") for rule in field.metadata if hasattr(rule, key)
    ]
    span = f" from {bounds[0]} to {bounds[1]}" if bounds else ""
    return invalid_header(name, f"expected {field.title}{span}, but got '{details['input'][:64]}'")


def invalid_header(name: str, problem: str) -> APIError:
    """Refuse the value of a header; `problem` says what was expected and what came."""
    return APIError(f"Invalid '{name}': {problem} instead.", param=name, code="invalid_value")


def server_error() -> APIError:
    """Tell of a fault of our own; what it was is in the log."""
    return APIError(
        "The server had an error while processing your request.", status=500, type="server_error"
    )


def overloaded(*, in_body: bool = False) -> APIError:
    """Refuse a request that there is no room for, or no time.

    With `in_body`, before its body has arrived, the connection ends: the rest would be thrown away.
    """
    return APIError(
        "The server is currently overloaded. Please try again later.",
        status=503,
        type="service_unavailable_error",
        code="server_is_overloaded",
        headers={"retry-after": str(RETRY_AFTER_S)} | ({"connection": "close"} if in_body else {}),
    )


def unknown_parameter(param: str) -> APIError:
    """Refuse a parameter that OpenAI does not have."""
    return APIError(f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter")


def placed(error: APIError, places: Mapping[str, str]) -> APIError:
    """Return an error that names a header by the place where the client has put it.

    Args:
        error: Names headers.
        places: Where each header stands that did not come as one, such as ``emulation.ttft_ms``.
    """
    if not places:
        return error
    message = _HEADER.sub(lambda header: places.get(header[0], header[0]), error.body.message)
    param = error.body.param and places.get(error.body.param, error.body.param)
    error.body = error.body.model_copy(update={"message": message, "param": param})
    return error


def path_of(loc: Sequence[int | str]) -> str:
    """Write a location as ``messages[0].content``.

    The tags of unions (``<user>``) drop out, and pydantic's mark of a key (``[key]``) too.
    """
    steps = (
        f"[{step}]" if isinstance(step, int) else f".{step}"
        for step in loc
        if isinstance(step, int) or not (step.startswith("<") or step == "[key]")
    )
    path = "".join(map(shown, steps)).lstrip(".")
    return path if len(path) <= MAX_PATH_SHOWN else f"{path[:MAX_PATH_SHOWN]}..."


def shown(text: str) -> str:
    """Return a client's text as a message shows it: not all of a long one."""
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


_JSON_TYPES = {
    type(None): "null",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal",
    str: "a string",
    list: "an array",
    dict: "an object",
}


def _listed(values: Sequence[str]) -> str:
    """Join quoted values as ``'a', 'b', and 'c'``."""
    quoted = [f"'{value}'" for value in values]
    match quoted:
        case [only]:
            return only
        case [first, second]:
            return f"{first} and {second}"
        case _:
            return f"{', '.join(quoted[:-1])}, and {quoted[-1]}"


def invalid_type(value: object, expected: str, param: str) -> APIError:
    """Refuse a value of another JSON type than `expected`."""
    subject = f" for '{param}'" if param else ""
    return APIError(
        f"Invalid type{subject}: expected {expected}, but got {_JSON_TYPES[type(value)]} instead.",
        param=param or None,
        code="invalid_type",
    )


def string_too_long(param: str, most: int, length: int) -> APIError:
    """Refuse a string of more than `most` characters."""
    return APIError(
        f"Invalid '{param}': string too long. Expected a string with maximum length {most}, "
        f"but got a string with length {length} instead.",
        param=param,
        code="string_above_max_length",
    )


def _invalid_value(value: str, supported: Sequence[str], param: str) -> APIError:
    noun = "value is" if len(supported) == 1 else "values are"
    return APIError(
        f"Invalid value: '{shown(value)}'. Supported {noun}: {_listed(supported)}.",
        param=param,
        code="invalid_value",
    )


def _missing(_: ErrorDetails, param: str) -> APIError:
    if param == "model":
        return APIError("you must provide a model parameter")
    return APIError(
        f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
    )


def _expected(what: str) -> Rule:
    return lambda error, param: invalid_type(error["input"], what, param)


def _wrong_json_type(error: ErrorDetails, param: str) -> APIError:
    return invalid_type(error["input"], error["ctx"]["expected"], param)


def _unknown_variant(error: ErrorDetails, param: str) -> APIError:
    value, key = error["input"], error["ctx"]["key"]
    if not isinstance(value, Mapping):
        return invalid_type(value, "an object", param)
    param = f"{param}.{key}"
    if key not in value:
        return _missing(error, param)
    if not isinstance(value[key], str):
        return invalid_type(value[key], "a string", param)
    return _invalid_value(value[key], error["ctx"]["supported"].split(","), param)


def _not_in_literal(error: ErrorDetails, param: str) -> APIError:
    if not isinstance(error["input"], str):
        return invalid_type(error["input"], "a string", param)
    supported = error["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
    return _invalid_value(error["input"], supported, param)


def _out_of_range(side: str, sign: str, bound: str) -> Rule:
    def rule(error: ErrorDetails, param: str) -> APIError:
        limit: Any = error["ctx"][bound]
        kind = "integer" if isinstance(limit, int) else "decimal"
        got = shown(str(error["input"]))
        return APIError(
            f"Invalid '{param}': {kind} {side} value. "
            f"Expected a value {sign} {_plain(limit)}, but got {got} instead.",
            param=param,
            code=f"{kind}_{side.replace('imum', '').replace(' ', '_')}_value",
        )

    return rule


def _plain(limit: float) -> str:
    """Write a bound in full: an integer with all its digits, a decimal without ``.0``."""
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def _too_short(noun: str) -> Rule:
    def rule(error: ErrorDetails, param: str) -> APIError:
        if param == "model":
            return _missing(error, param)
        article = "an" if noun == "array" else "a"
        return APIError(
            f"Invalid '{param}': empty {noun}. Expected {article} {noun} with minimum length "
            f"{error['ctx']['min_length']}, but got an empty {noun} instead.",
            param=param,
            code=f"empty_{noun}",
        )

    return rule


def _too_long(error: ErrorDetails, param: str) -> APIError:
    limit, value = error["ctx"]["max_length"], error["input"]
    if isinstance(value, str):
        return string_too_long(param, limit, len(value))
    noun = _JSON_TYPES[type(value)]
    if isinstance(value, dict):
        problem, size, code = "too many properties", "properties", "object_above_max_properties"
        limits, got = f"at most {limit} {size}", f"{len(value)} {size}"
    else:
        problem, code = "array too long", "array_above_max_length"
        limits, got = f"maximum length {limit}", f"length {len(value)}"
    return APIError(
        f"Invalid '{param}': {problem}. "
        f"Expected {noun} with {limits}, but got {noun} with {got} instead.",
        param=param,
        code=code,
    )


def _beyond_double(error: ErrorDetails, param: str) -> APIError:
    param = f"{param}{shown(error.get('ctx', {}).get('path', ''))}"
    return APIError(
        f"Invalid '{param}': number out of range. Expected a number that a double can hold, "
        "but got a larger one instead.",
        param=param,
        code="invalid_value",
    )


def _pattern_mismatch(error: ErrorDetails, param: str) -> APIError:
    return APIError(
        f"Invalid '{param}': string does not match pattern. Expected a string that matches the "
        f"pattern '{error['ctx']['pattern']}'.",
        param=param,
        code="invalid_value",
    )


def _refused(error: ErrorDetails, param: str) -> APIError:
    context = error["ctx"]
    path = f"{param}.{context['param']}".strip(".").replace(".[", "[")
    return APIError(context["message"], param=path or None, code=context["code"] or None)


def _other(error: ErrorDetails, param: str) -> APIError:
    return APIError(
        f"Invalid '{param}': {error['msg']}.", param=param or None, code="invalid_value"
    )


RULES: Mapping[str, Rule] = {
    "missing": _missing,
    "string_type": _expected("a string"),
    "int_type": _expected("an integer"),
    "float_type": _expected("a decimal"),
    "bool_type": _expected("a boolean"),
    "list_type": _expected("an array"),
    "tuple_type": _expected("an array"),
    "dict_type": _expected("an object"),
    "model_type": _expected("an object"),
    "model_attributes_type": _expected("an object"),
    "wrong_json_type": _wrong_json_type,
    "unknown_variant": _unknown_variant,
    "literal_error": _not_in_literal,
    "greater_than_equal": _out_of_range("below minimum", ">=", "ge"),
    "less_than_equal": _out_of_range("above maximum", "<=", "le"),
    "too_short": _too_short("array"),
    "string_too_short": _too_short("string"),
    "finite_number": _beyond_double,
    "beyond_double": _beyond_double,
    "refused": _refused,
    "too_long": _too_long,
    "string_too_long": _too_long,
    "string_pattern_mismatch": _pattern_mismatch,
    "extra_forbidden": lambda _, param: unknown_parameter(param),
}
