"""Requests for control as data, and what their answers say: the same for both clients."""

import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import httpx

KEY_VARIABLE = "EMULATOR_CONTROL_KEY"
TIMEOUT_S = 30.0

Answer = TypeVar("Answer")
Json = Mapping[str, Any]


class EmulatorError(Exception):
    """The emulator has refused a request for control.

    Args:
        message: Why.
        status: The HTTP status.
        param: The path of the field that is at fault, if one is.
        code: The code of the error.
    """

    def __init__(self, message: str, status: int, param: str | None, code: str | None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code


@dataclass(frozen=True)
class Call(Generic[Answer]):
    """One request for control.

    Args:
        method: Its method.
        path: Its path.
        read: Returns what its answer says.
        body: Its body, if it has one.
        query: Its query; what is None is left out.
    """

    method: str
    path: str
    read: Callable[[Any], Answer]
    body: Json | None = None
    query: Mapping[str, object] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of httpx's `request`."""
        query = {name: value for name, value in self.query.items() if value is not None}
        given: dict[str, Any] = {"method": self.method, "url": self.path, "params": query}
        if self.method != "GET":
            given["headers"] = {"content-type": "application/json"}
        if self.body is not None:
            given["json"] = self.body
        return given

    def answer(self, response: httpx.Response) -> Answer:
        """Return what an answer says.

        Raises:
            EmulatorError: It is an error.
        """
        if response.is_success:
            return self.read(response.json())
        raise _error(f"{self.method} {self.path}", response)


def _error(asked: str, response: httpx.Response) -> EmulatorError:
    try:
        error = response.json()["error"]
        told, param, code = error["message"], error["param"], error["code"]
    except (ValueError, KeyError, TypeError):  # something between that is no emulator
        told, param, code = response.text[:500], None, None
    message = f"{asked}: {response.status_code}: {told}"
    return EmulatorError(message, response.status_code, param, code)


def client_options(url: str, control_key: str | None, timeout_s: float) -> dict[str, Any]:
    """Return the arguments of the httpx client that controls a server."""
    key = control_key or os.environ.get(KEY_VARIABLE)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return {"base_url": url, "headers": headers, "timeout": timeout_s, **direct(url)}


def direct(url: str) -> dict[str, Any]:
    """Return the arguments of httpx's clients that reach a server past any proxy.

    To read the certificates of all authorities takes 20 ms, which only https needs.
    """
    is_plain = url.startswith("http:")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if is_plain else True
    return {"trust_env": False, "verify": context}


# --------------------------------------------------------------------------------------
# What can be asked
# --------------------------------------------------------------------------------------


def _same(answer: Any) -> Any:  # noqa: ANN401 - JSON
    return answer


def _nothing(_: object) -> None:
    return None


def status() -> Call[Json]:
    """Ask for all that is in force."""
    return Call("GET", "/emulator", _same)


def get_settings() -> Call[Json]:
    """Ask for the settings that can change."""
    return Call("GET", "/emulator/settings", lambda answer: answer["settings"])


def get_changed() -> Call[Json]:
    """Ask for what differs from the settings of the start."""
    return Call("GET", "/emulator/settings", lambda answer: answer["changed"])


def patch_settings(patch: Json) -> Call[Json]:
    """Change settings; None goes back to the start's."""
    return Call("PATCH", "/emulator/settings", lambda answer: answer["settings"], patch)


def reset_settings() -> Call[Json]:
    """Go back to the settings of the start."""
    return Call("DELETE", "/emulator/settings", lambda answer: answer["settings"])


def _rules(answer: Json) -> list[dict[str, Any]]:
    return list(answer["rules"])


def list_rules() -> Call[list[dict[str, Any]]]:
    """Ask for all rules."""
    return Call("GET", "/emulator/rules", _rules)


def replace_rules(rules: Sequence[Json]) -> Call[list[dict[str, Any]]]:
    """Put other rules in place of all."""
    return Call("PUT", "/emulator/rules", _rules, {"rules": [*rules]})


def _rule_path(name: str) -> str:
    return f"/emulator/rules/{quote(name, safe='')}"


def put_rule(name: str, rule: Json, before: str | None = None) -> Call[dict[str, Any]]:
    """Put one rule."""
    return Call("PUT", _rule_path(name), lambda said: _rules(said)[0], rule, {"before": before})


def delete_rule(name: str) -> Call[None]:
    """Take one rule away."""
    return Call("DELETE", _rule_path(name), _nothing)


def get_schedule() -> Call[Json | None]:
    """Ask for the schedule."""
    return Call("GET", "/emulator/schedule", lambda answer: answer["schedule"])


def put_schedule(schedule: Json) -> Call[Json | None]:
    """Begin a schedule."""
    return Call("PUT", "/emulator/schedule", lambda answer: answer["schedule"], schedule)


def delete_schedule() -> Call[None]:
    """End the schedule."""
    return Call("DELETE", "/emulator/schedule", _nothing)


def reset(what: Sequence[str], scope: str | None) -> Call[None]:
    """Set things back to how they are at the start."""
    body: dict[str, object] = {}
    if what:
        body["what"] = [*what]
    if scope is not None:
        body["scope"] = scope
    return Call("POST", "/emulator/reset", _nothing, body)


def mark(text: str) -> Call[None]:
    """Write a text beside what is measured."""
    return Call("POST", "/emulator/marks", _nothing, {"text": text})


def undoing(patch: Json, before: Json) -> dict[str, Any]:
    """Return the merge patch that undoes another.

    Args:
        patch: The other one.
        before: What differed from the settings of the start before it.
    """
    undone: dict[str, Any] = {}
    for name, value in patch.items():
        old = before.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            undone[name] = undoing(value, old)
        else:
            undone[name] = old
    return undone
