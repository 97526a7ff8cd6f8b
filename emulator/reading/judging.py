"""A request that was read, as rules judge it."""

from emulator.answers.ask import Ask
from emulator.answers.script import Script, Told
from emulator.emulation.asked import Asked
from emulator.rules.deciding import Decision, Undecided
from emulator.rules.globs import Budget
from emulator.rules.ruleset import Rules
from emulator.rules.subject import Conversation, Seen, Subject, checked_scope
from emulator.settings import Settings

# How long rules may take for one request: in a worker, which has streams to serve, and in a helper.
WORKER_S = 0.001
HELPER_S = 2.0
# What a worker does not begin with: characters times rules that look at them. It takes it 0.1 ms.
WORKER_WORK = 1 << 18
NO_RULES = Rules()


class Judged:
    """One request and the rules for it; it stays in the process that has read it.

    Args:
        rules: The rules.
        seen: What they look at beside the body.
        ask: What is asked.
        asked: What is asked beside the API.
        conversation: What is said so far.
        settings: The operator's settings.

    Raises:
        APIError: Its scope has no good name.
    """

    def __init__(
        self,
        rules: Rules | None,
        seen: Seen | None,
        ask: Ask,
        asked: Asked,
        conversation: Conversation,
        settings: Settings,
    ) -> None:
        self._rules = rules or NO_RULES
        seen = seen or Seen("")
        scope = asked.emulation.emulation_scope or checked_scope(seen.scope)
        self._subject = Subject(seen, ask, conversation, scope)
        self._asked = asked
        strict = asked.emulation.emulation_strict
        self._is_strict = settings.unmatched == "refuse" if strict is None else strict

    def judge(self, budget: Budget) -> tuple[Decision, Undecided | None]:
        """Return the rules' decision, and the state for a second decision after counting.

        Raises:
            APIError: No rule has an answer, and one must.
            OverBudgetError: It takes too long.
        """
        decided = self._asked.decided
        return self._rules.judge(self._subject, decided, budget, strict=self._is_strict)

    def asked(self, decision: Decision) -> Asked:
        """Return the X-* values of the request, with the timing that rules set."""
        if not decision.timing:
            return self._asked
        return self._asked.ruled(decision.timing, decision.sources)

    def script(self, decision: Decision, budget: Budget) -> tuple[Script | None, Told | None]:
        """Return the scripted text of the answer and its metadata.

        Raises:
            ScriptError: A template fails.
            OverBudgetError: It takes too long.
        """
        return self._rules.script(decision, self._subject, budget)
