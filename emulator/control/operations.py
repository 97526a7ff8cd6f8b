"""The table of all that can be asked below /emulator: how each is found, and what describes it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from pydantic import BaseModel
from starlette.exceptions import HTTPException

from emulator.contract.errors import APIError
from emulator.control.changes.refusals import refused_at
from emulator.transport.exchange import Exchange
from emulator.transport.sending import Reply

PREFIX = "/emulator"
JSON_TYPE = "application/json"
NAME = "{name}"


@dataclass(frozen=True, slots=True)
class Call:
    """One request for control.

    Args:
        exchange: The request.
        name: What stands in the place of ``{name}`` in the path.
        body: Its body; empty for a GET.
    """

    exchange: Exchange
    name: str = ""
    body: bytes = b""

    def query(self, *known: str) -> dict[str, str]:
        """Return the parameters of the query.

        Raises:
            APIError: One has another name, or comes twice.
        """
        text = self.exchange.scope.get("query_string", b"").decode("latin-1")
        found = parse_qs(text, keep_blank_values=True)
        for name, values in found.items():
            if name not in known:
                expected = f"one of {', '.join(known)}" if known else "no parameter"
                raise refused_at((name,), f"expected {expected} in the query")
            if len(values) > 1:
                raise refused_at((name,), f"expected one value, but got {len(values)}")
        return {name: values[0] for name, values in found.items()}


Handle = Callable[[Call], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    Args:
        method: The method.
        path: The path; ``{name}`` at its end stands for anything.
        summary: What it does.
        handle: Answers.
        answer: The model of its answer.
        body: That of the request's body, if it has one.
        query: The parameters of its query, with what each says.
        is_open: Whether anybody may ask it.
        media_type: What its answer is.
    """

    method: str
    path: str
    summary: str
    handle: Handle
    answer: type[BaseModel]
    body: type[BaseModel] | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    is_open: bool = False
    media_type: str = JSON_TYPE


class Table:
    """Finds operations.

    Args:
        operations: All there are.
    """

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.operations = operations
        self._plain: dict[str, dict[str, Operation]] = {}
        self._named: dict[str, dict[str, Operation]] = {}
        for each in operations:
            stem = each.path.removesuffix(NAME)
            found = self._plain if stem == each.path else self._named
            found.setdefault(stem, {})[each.method] = each

    def find(self, method: str, path: str) -> tuple[Operation, str]:
        """Return the operation of a request, and the name in its path.

        Raises:
            HTTPException: 404 or 405.
        """
        methods, name = self._plain.get(path), ""
        if methods is None:
            for stem, named in self._named.items():
                if path.startswith(stem) and len(path) > len(stem):
                    methods, name = named, path.removeprefix(stem)
        if methods is None:
            raise HTTPException(404)
        operation = methods.get(method)
        if operation is None:
            raise HTTPException(405, headers={"allow": ", ".join(sorted(methods))})
        return operation, name


def refuse_stale(exchange: Exchange, revision: int) -> None:
    """Refuse a change of a revision that holds no more.

    Raises:
        APIError: 409, where If-Match names another; 400 where it names none.
    """
    given = exchange.header(b"if-match")
    if given is None or given.strip() == "*":
        return
    text = given.strip().removeprefix("W/").strip('"')
    if not text.isascii() or not text.isdigit():
        raise refused_at(("If-Match",), f"expected a revision, but got '{given:.64}'")
    if int(text) != revision:
        raise APIError(
            f"Expected revision {text}, as If-Match says, but revision {revision} holds.",
            status=409,
            param="If-Match",
            code="revision_conflict",
        )
