"""JSON and server-sent events of legacy completions."""

from collections.abc import Iterable, Iterator, Sequence

from emulator.answers.answer import Answer, Segment
from emulator.answers.logprobs import Likelihood
from emulator.apis.completions.likelihoods import pieces
from emulator.apis.completions.schema import Completion, CompletionChoice
from emulator.contract.usage import Usage
from emulator.rendering.chunks import ChunkRenderer
from emulator.rendering.frames import with_logprobs
from emulator.rendering.renderer import SLOT, AnswerStream, CountUsage, Header
from emulator.rendering.token_ids import with_all_token_ids


class CompletionRenderer(ChunkRenderer):
    """Writes legacy completions.

    Args:
        header: What every chunk says.
        echoes: For each choice the prompt that comes before its text.
        include_usage: Whether every chunk has a usage, which is null in all but the last.
    """

    def __init__(
        self,
        header: Header,
        echoes: Sequence[str],
        *,
        include_usage: bool,
        prompt_ids: Sequence[str] | None = None,
    ) -> None:
        super().__init__(header, include_usage=include_usage, prompt_ids=prompt_ids)
        self._echoes = echoes

    def whole(self, answers: Sequence[Answer], usage: Usage) -> bytes | bytearray:
        """Return the whole answer as JSON."""
        choices = [
            CompletionChoice(
                text=self._echoes[answer.index] + "".join([s.text for s in answer.segments]),
                index=answer.index,
                finish_reason=answer.finish_reason,
            )
            for answer in answers
        ]
        body = with_logprobs(self._completion(choices, usage).model_dump_json(), self, answers)
        if self._prompt_ids is None:
            return body
        self._tell_prompts(answers)
        return with_all_token_ids(body, answers)

    def stream(
        self, answers: Sequence[Answer], tokens_per_event: int, count_usage: CountUsage | None
    ) -> AnswerStream:
        """Return what renders the events as their tokens are due."""
        self._tell_prompts(answers)
        return super().stream(answers, tokens_per_event, count_usage)

    def _tell_prompts(self, answers: Sequence[Answer]) -> None:
        """Have each choice tell the ids of its prompt, where they are told."""
        if self._prompt_ids is not None:
            each = len(answers) // len(self._prompt_ids)
            for answer in answers:
                answer.prompt_ids = self._prompt_ids[answer.index // each]

    def preamble(self, answer: Answer, segment: Segment) -> str:  # noqa: ARG002
        """Return the prompt, if it is to be echoed."""
        echo = self._echoes[answer.index]
        return self._chunk([CompletionChoice(text=echo, index=answer.index)]) if echo else ""

    def token(self, answer: Answer, segment: Segment) -> str:  # noqa: ARG002
        """Return the event of one token, with `SLOT` for its text."""
        return self._chunk([CompletionChoice(text=SLOT, index=answer.index)])

    def logprobs(
        self,
        answer: Answer,  # noqa: ARG002
        entries: Iterable[Likelihood],
        offset: int,
    ) -> Iterator[str]:
        """Return the log probabilities of some tokens as JSON; `offset` counts characters."""
        return pieces(entries, offset)

    def finish(self, answer: Answer) -> str:
        """Return the event that ends a choice."""
        end = CompletionChoice(text="", index=answer.index, finish_reason=answer.finish_reason)
        return self._chunk([end])

    def usage_chunk(self, usage: Usage) -> str:
        """Return the chunk without choices that tells the usage."""
        return self._chunk([], usage)

    def _chunk(self, choices: list[CompletionChoice], usage: Usage | None = None) -> str:
        chunk = self._completion(choices, usage)
        return f"data: {chunk.model_dump_json(exclude=self._omitted)}\n\n"

    def _completion(self, choices: list[CompletionChoice], usage: Usage | None) -> Completion:
        header = self._header
        return Completion(
            id=header.id,
            created=header.created,
            model=header.model,
            choices=choices,
            usage=usage,
            system_fingerprint=header.system_fingerprint,
        )
