"""From the bytes of a request for texts to its answers: read, refused or planned, and composed.

Nothing here waits, or knows a connection or the clock. A worker does it itself for small requests,
a helper for the others.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Any, NamedTuple, Protocol, TypeAlias, cast

from emulator.answers.answer import Answer
from emulator.answers.ask import Ask
from emulator.answers.composing import Composer, is_quick
from emulator.answers.corpora import Corpora, TextKind
from emulator.answers.logprobs import ScoredPrompts
from emulator.answers.script import Told
from emulator.contract.bodies import ModelRequest, RequestModel
from emulator.contract.bounds import MAX_PROMPT_IDS_TOLD
from emulator.contract.error_words import placed
from emulator.contract.errors import APIError
from emulator.dialects.dialect import Dialect
from emulator.emulation.asked import Asked, read_asked
from emulator.emulation.opening import Opening
from emulator.engine.prompts import EnginePrompt, engine_prompts
from emulator.helpers.pool import close
from emulator.helpers.spool import Spool
from emulator.reading.bodies import AnyRequest, parse_any_body
from emulator.reading.counting import PromptCount
from emulator.reading.judging import WORKER_S, WORKER_WORK, Judged
from emulator.reading.planning import plan_generation
from emulator.rendering.renderer import Header, Renderer
from emulator.rendering.token_ids import ids_json
from emulator.rules.deciding import NOTHING, Decision, Undecided
from emulator.rules.globs import Budget
from emulator.rules.subject import Conversation, Seen
from emulator.settings import Settings
from emulator.state import State
from emulator.timing.plan import GenerationPlan

MakeRenderer = Callable[[Header], Renderer]
NOT_COUNTED = PromptCount(known=0)
NO_TEXT = 0  # the id that is told for what takes tokens and has no text: functions, pictures


class Ruling(NamedTuple):
    """What rules need of a request beside its body.

    Args:
        seen: What they look at.
        decision: What they decide, if that is known already.
        seconds: The time that they may take, beyond which a helper has to do it.
    """

    seen: Seen | None = None
    decision: Decision | None = None
    seconds: float = WORKER_S

    def budget(self) -> Budget:
        """Begin to count the time."""
        return Budget(self.seconds, WORKER_WORK if self.seconds <= WORKER_S else inf)


class PromptSource(Protocol):
    """The prompt of a request."""

    @property
    def texts(self) -> Sequence[str]:
        """The texts, which tell it from others with the same seed."""

    def count(self) -> int:
        """Return how many tokens it has."""

    def ids(self) -> Sequence[Sequence[int]]:
        """Return the token ids of each prompt."""


class Scores(Protocol):
    """What makes the log probabilities of prompts."""

    @property
    def is_quick(self) -> bool:
        """Whether it takes under 0.5 ms to make them."""

    def make(self) -> ScoredPrompts:
        """Return the prompts with their log probabilities.

        Raises:
            APIError: There are too many, or a prompt has none.
        """


class Reading(NamedTuple):
    """What an API makes of a body; ``scores`` if the answer tells log probabilities of prompts."""

    ask: Ask
    prompt: PromptSource
    renderer: MakeRenderer
    scores: Scores | None = None


class BodyOfTexts(Protocol):
    """The API as the reader sees it: the schema of its requests, and the reading of one."""

    path: str

    @property
    def body(self) -> type[ModelRequest]:
        """The schema of its requests."""

    def read(
        self,
        request: Any,  # noqa: ANN401 - of type `body`
        *,
        lenient: bool,
        dialect: Dialect,
    ) -> Reading:
        """Return the reading of a request, with the renderer of its dialect.

        Raises:
            APIError: The API refuses it; a `lenient` one lets pass what other servers do.
        """

    def conversation(self, request: Any) -> Conversation:  # noqa: ANN401 - of type `body`
        """Return a request in the words of rules."""


@dataclass(slots=True)
class Read:
    """A request that was read and planned; it stays in the process that has read it."""

    ask: Ask
    asked: Asked
    plan: GenerationPlan
    opening: Opening | None
    prompt: PromptSource
    renderer: MakeRenderer
    text: TextKind
    scores: Scores | None = None
    judged: Judged | None = None
    decision: Decision = NOTHING
    undecided: Undecided | None = None
    told: Told | None = None

    @property
    def is_quick(self) -> bool:
        """Whether to compose the answers takes under 0.5 ms."""
        if self.scores is not None and not self.scores.is_quick:
            return False
        return is_quick(self.ask, self.plan, self.asked.emulation.tool_calls)


async def _never(_: Decision) -> "Ready":
    raise RuntimeError("nothing of this request is undecided")


@dataclass(slots=True)
class Ready:
    """A request whose answers are composed; a helper sends it to its worker.

    Args:
        ask: What was asked, without what was large in it.
        asked: The X-* headers.
        plan: When the tokens are due.
        renderer: Makes what writes the answers.
        answers: What the choices say.
        opening: How a stream of them begins, if not at once.
        note: What the log line says of how they were made.
        prompts: The prompts as an engine sees them; None where they are not made yet.
        ids: Makes the token ids for them.
        count: The count of the prompt's tokens; the worker sets it.
        told: What a rule tells of the answer in place of what is true.
        decision: What rules decide.
        undecided: What is known for another decision, if rules have to be counted first.
        again: Reads the request again by that decision; the worker sets it.
        held: The body, if that is needed for it.
        parts: What of the answer is large and made already; it travels apart, as bytes.
    """

    ask: Ask
    asked: Asked
    plan: GenerationPlan
    renderer: MakeRenderer
    answers: Sequence[Answer]
    opening: Opening | None = None
    note: str = ""
    prompts: Sequence[EnginePrompt] | None = None
    ids: Callable[[], Sequence[Sequence[int]]] | None = None
    count: PromptCount = NOT_COUNTED
    parts: Sequence[bytes | bytearray] = ()
    told: Told | None = None
    decision: Decision = NOTHING
    undecided: Undecided | None = None
    again: "Again" = _never
    held: bytes | bytearray | Spool = b""

    def give_up(self) -> None:
        """Let go of the body, and give up a count that is under way."""
        self.count.cancel()
        close(self.held)
        self.held = b""

    @property
    def token_limit(self) -> int | None:
        """The request's own limit on the tokens of one answer."""
        return self.ask.token_limit

    @property
    def planned_tokens(self) -> int:
        """The planned tokens of all choices, which limits charge beside the prompt's."""
        return (self.plan.reasoning_tokens + self.plan.output_tokens) * self.ask.choices


Again: TypeAlias = Callable[[Decision], Awaitable[Ready]]
"""Reads a request again, as rules that were counted have decided it."""


class Reader:
    """Reads requests, and composes their answers; the same in a worker and in its helpers."""

    def __init__(self) -> None:
        self.corpora = Corpora()

    def parse(
        self, body: bytes | bytearray, model: type[AnyRequest], state: State, path: str
    ) -> AnyRequest:
        """Read and check a body that came to a path.

        Raises:
            APIError: Not JSON, not what the schema asks for, or for a model that does not exist.
        """
        settings = state.settings
        request = parse_any_body(
            body,
            model,
            path=path,
            dialect=state.dialect,
            strict=settings.strict_parameters,
            default_model=settings.models[0],
        )
        refuse_unknown_model(request, settings)
        return request

    def read(
        self,
        api: BodyOfTexts,
        given: Mapping[str, str],
        body: bytes | bytearray,
        state: State,
        ruling: Ruling | None = None,
    ) -> Read:
        """Read a request for texts, and plan its answers.

        Args:
            api: The API that it is for.
            given: Its X-* headers.
            body: Its body.
            state: The snapshot that answers it.
            ruling: What rules look at beside these, and the time that they may take.

        Raises:
            APIError: It is refused.
            OverBudgetError: Rules take too long.
        """
        settings = state.settings
        request = self.parse(body, api.body, state, api.path)
        asked = read_asked(given, request)
        dialect = state.dialect
        lenient = settings.lenient or dialect.is_lenient
        reading = api.read(request, lenient=lenient, dialect=dialect)
        if state.rules is None and not asked.emulation.emulation_strict:
            return _planned(reading, asked, settings)
        ruling = ruling or Ruling()
        talk, decision = api.conversation(request), ruling.decision
        judged = Judged(state.rules, ruling.seen, reading.ask, asked, talk, settings)
        undecided, budget = None, ruling.budget()
        if decision is None:
            decision, undecided = judged.judge(budget)
        decided = _decided(reading, judged, decision, settings, budget)
        decided.undecided = undecided
        return decided

    def decide(self, read: Read, decision: Decision, settings: Settings, budget: Budget) -> Read:
        """Return a request as rules decide it.

        Raises:
            APIError: It is refused.
            OverBudgetError: It takes too long.
        """
        if read.judged is None:
            raise ValueError("no rules were there when this request was read")
        reading = Reading(read.ask, read.prompt, read.renderer, read.scores)
        return _decided(reading, read.judged, decision, settings, budget)

    def compose(self, read: Read) -> Ready:
        """Compose the answers of a request.

        Raises:
            APIError: Nothing satisfies a schema, or all choices together have too many tokens.
        """
        ask, asked = read.ask, read.asked.emulation
        texts, material = self.corpora.of(read.text, ask.model), read.prompt.texts
        scored = None if read.scores is None else read.scores.make()
        composer = Composer(ask, read.plan, texts, material, asked, scored=scored)
        try:
            answers = composer.compose()
        except APIError as error:
            raise placed(error, read.asked.places) from None
        slots = answers[0].slots if len(answers) == 1 else max(a.slots for a in answers)
        plan = read.plan.timed_as(slots)
        renderer = _telling_ids(read) if ask.token_ids else read.renderer
        return Ready(
            ask.light(),
            read.asked,
            plan,
            renderer,
            answers,
            read.opening,
            composer.note,
            parts=() if scored is None else scored.parts,
            told=read.told,
            decision=read.decision,
            undecided=read.undecided,
        )


def _planned(reading: Reading, asked: Asked, settings: Settings) -> Read:
    """Return a request with the plan of its answers.

    Raises:
        APIError: It is refused.
    """
    ask, prompt, renderer, scores = reading
    try:
        plan = plan_generation(ask, asked.emulation, settings)
        opening = Opening.of(asked.emulation, settings)
    except APIError as error:
        raise placed(error, asked.places) from None
    text = asked.emulation.text or settings.text
    return Read(ask, asked, plan, opening, prompt, renderer, text, scores)


def _decided(
    reading: Reading, judged: Judged, decision: Decision, settings: Settings, budget: Budget
) -> Read:
    """Return a request as rules decide it, with the plan of its answers.

    Raises:
        APIError: It is refused.
        OverBudgetError: Rules take too long.
    """
    ask, asked = reading.ask, judged.asked(decision)
    script, told = judged.script(decision, budget)
    if script is not ask.script:
        reading = reading._replace(ask=replace(ask, script=script))
    read = _planned(reading, asked, settings)
    read.judged, read.decision, read.told = judged, decision, told
    return read


def _telling_ids(read: Read) -> MakeRenderer:
    """Return a factory of renderers that include the prompt's token ids.

    Raises:
        APIError: They are too many.
    """
    prompts = read.prompt.ids()
    told = sum(map(len, prompts)) * read.ask.n
    if told > MAX_PROMPT_IDS_TOLD:
        raise APIError(
            f"Invalid 'return_token_ids': expected at most {MAX_PROMPT_IDS_TOLD} token ids of "
            f"prompts in all choices, but got {told}.",
            param="return_token_ids",
            code="array_above_max_length",
        )
    ids = [ids_json(max(token, NO_TEXT) for token in prompt) for prompt in prompts]
    return partial(cast("Callable[..., Renderer]", read.renderer), prompt_ids=ids)


def refuse_unknown_model(request: RequestModel, settings: Settings) -> None:
    """Refuse a model that is not listed, where the settings say so.

    Raises:
        APIError: It is not listed.
    """
    served = request.served_model
    if settings.strict_models and served is not None and served not in settings.models:
        raise APIError(
            f"The model `{served}` does not exist or you do not have access to it.",
            status=404,
            code="model_not_found",
        )


def prompts_of(ready: Ready, state: State) -> Sequence[EnginePrompt]:
    """Return the prompts of a request as the engine sees them."""
    if ready.prompts is None and ready.ids is not None and state.engine is not None:
        ready.prompts, ready.ids = engine_prompts(ready.ids(), state.engine), None
    return ready.prompts or ()
