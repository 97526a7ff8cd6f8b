"""POST /emulator/try: which rules a request would match."""

import json
import time
from collections.abc import Callable
from typing import NamedTuple

from pydantic import ValidationError

from emulator.contract.errors import APIError
from emulator.control.changes import rule_list
from emulator.control.changes.refusals import first_fault, refused_at
from emulator.control.operations import Call, Operation
from emulator.control.truth import Truth
from emulator.reading.bodies import parse_json
from emulator.rules.ruleset import Rules
from emulator.state import State
from emulator.transport.exchange import Exchange
from emulator.transport.sending import Reply, whole_reply
from emulator.trials.trial import Apis, Trial, TrialResult, Tried, of_request, of_row, tried

NEW_RULE = "this rule"


class Row(NamedTuple):
    """What the journal keeps of a request that rules look at.

    Args:
        path: The path of the URL.
        model: The model.
        scope: The scope; empty if it had none.
        stream: Whether the answer was a stream.
        body: The body; empty where it is not kept, or not in whole.
    """

    path: str
    model: str
    scope: str
    stream: bool
    body: bytes = b""


Find = Callable[[str], Row | None]
"""Finds a request of the journal by its id."""


class TrialEndpoint:
    """Tries rules.

    Args:
        truth: Knows those in force.
        apis: Read requests.
        find: Finds a request in the journal.
    """

    def __init__(self, truth: Truth, apis: Apis, find: Find) -> None:
        self._truth = truth
        self._apis = apis
        self._find = find

    @property
    def operation(self) -> Operation:
        """What is asked."""
        summary = "Tell which rules a request would match"
        return Operation("POST", "/emulator/try", summary, self.answer, TrialResult, Trial)

    async def answer(self, call: Call) -> Reply:
        """Answer one request.

        Raises:
            APIError: The body is no trial, or there is no such request.
        """
        call.query()
        self._truth.look()
        state, trial = self._truth.live.current, _read(call.body)
        rules = self._rules(trial, state)
        request = self._request(trial, rules, call.exchange)
        result = TrialResult(revision=state.version, rules=tried(rules.rules, request))
        reply = whole_reply(call.exchange, result)
        reply.headers = [(b"cache-control", b"no-store")]
        return reply

    def _rules(self, trial: Trial, state: State) -> Rules:
        """Return the rules in force, and the one to try in its place or before them."""
        if trial.rule is None:
            return state.rules or Rules()
        entries = list(self._truth.builder.entries(self._truth.changes))
        entry = rule_list.timed(trial.rule, time.time(), ("rule",))
        entry = entry._replace(data={"name": NEW_RULE, **entry.data})
        rule_list.read([entry], state.settings, state.traces, lambda at: ("rule", *at[1:]))
        return rule_list.read(rule_list.placed(entries, entry, None), state.settings, state.traces)

    def _request(self, trial: Trial, rules: Rules, exchange: Exchange) -> Tried:
        settings = exchange.state.settings
        if (given := trial.request) is not None:
            body = json.dumps(given.body).encode()
            return of_request(self._apis, (given.path, given.headers, body), rules, settings)
        row = self._find(trial.id or "")
        if row is None:
            raise APIError(
                f"The journal holds no request '{trial.id or '':.128}'.",
                status=404,
                param="id",
                code="request_not_found",
            )
        if row.body:
            headers = {"x-emulation-scope": row.scope} if row.scope else {}
            return of_request(self._apis, (row.path, headers, row.body), rules, settings)
        return of_row(row.path, row.model, row.scope, stream=row.stream)


def _read(body: bytes) -> Trial:
    """Return what is to be tried.

    Raises:
        APIError: The body is not JSON, or no trial.
    """
    parse_json(body)
    try:
        trial = Trial.model_validate_json(body)
    except ValidationError as error:
        raise first_fault(error, Trial) from None
    if (trial.id is None) == (trial.request is None):
        raise refused_at((), "expected one of id and request")
    return trial
