"""Prompts that are echoed with log probabilities, as JSON."""

from codecs import getincrementaldecoder
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from json.encoder import encode_basestring_ascii as quoted

from emulator.answers.ask import too_many_logprobs
from emulator.answers.logprobs import ScoredPrompts, TextLogprobs, in_bytes
from emulator.apis.completions.likelihoods import NAMES, PREFIX, Row, lists, row
from emulator.apis.completions.prompt import CompletionPrompt, refuse_long_echoes, unknown_token
from emulator.apis.completions.schema import CompletionRequest
from emulator.contract.bounds import MAX_LOGPROBS
from tokenizer import token_bytes

# Of all prompts together: to score so many tokens takes about 0.5 ms, and to find out that there
# are no more, in so many characters, a fifth of it.
MAX_TOKENS_QUICK = 64
MAX_CHARACTERS_QUICK = 512
LINES = 2 + len(NAMES)  # of each prompt

_AT_ONCE = 4096
_FIRST = "null"  # nothing comes before the first token that it could follow from
_DECODER = getincrementaldecoder("utf-8")


class PromptScores:
    """What makes the log probabilities of a request's prompts.

    Args:
        completion: The request.
        prompt: Its prompts.
    """

    def __init__(self, completion: CompletionRequest, prompt: CompletionPrompt) -> None:
        self._completion = completion
        self._prompt = prompt

    @property
    def is_quick(self) -> bool:
        """Whether it takes about 0.5 ms to make them."""
        if sum(map(len, self._completion.prompt)) > MAX_CHARACTERS_QUICK:
            return False
        return sum(map(len, self._prompt.ids())) <= MAX_TOKENS_QUICK

    def make(self) -> ScoredPrompts:
        """Return the prompts with their log probabilities.

        Of each prompt there are `LINES` lines, each with its end: the text, its length in
        characters, and what stands between the brackets of each list of log probabilities.

        Raises:
            APIError: There are too many of them, or a token id that the encoding does not have, or
                the choices would repeat too much.
        """
        completion, ids = self._completion, self._prompt.ids()
        n, top = completion.n or 1, completion.logprobs or 0
        figures = sum(map(len, ids)) * (1 + top) * n
        if figures > MAX_LOGPROBS:
            raise too_many_logprobs(top)
        ends, parts, characters = [], list[bytes](), 0
        for given, tokens in zip(completion.prompt, ids, strict=True):
            utf8 = _bytes_of(tokens, completion.model)
            text = given if isinstance(given, str) else b"".join(utf8).decode("utf-8", "replace")
            characters += len(text) * n
            refuse_long_echoes(characters)
            scores = TextLogprobs(TextLogprobs.start(completion.model), top)
            scores.follow(utf8)
            ends.append(scores.end)
            parts += (quoted(text)[1:-1].encode(), b"\n%d\n" % len(text))
            parts += [f"{line}\n".encode() for line in _lists(_rows(utf8, scores))]
        return ScoredPrompts(ends, figures, parts)


def _bytes_of(tokens: Sequence[int], model: str) -> list[bytes]:
    """Return the bytes of each token.

    Raises:
        APIError: The encoding of the model does not have one.
    """
    try:
        return token_bytes(tokens, model)
    except KeyError as error:
        raise unknown_token(model, error) from None


def _rows(tokens: Sequence[bytes], scores: TextLogprobs) -> Iterator[Row]:
    """Yield the values of a prompt's tokens; each begins after the characters that are whole."""
    decoder, offset = _DECODER("replace"), 0
    for index, token in enumerate(tokens):
        likelihood = scores.entry(shown(token))
        values = row(likelihood, offset)
        yield values if index else values._replace(token_logprobs=_FIRST, top_logprobs=_FIRST)
        offset += len(decoder.decode(token))


@lru_cache(4096)
def shown(token: bytes) -> str:
    r"""Return a token's text; of one that is a part of a character its bytes, as OpenAI does.

    >>> shown(b" caf"), shown(b"\xc3")
    (' caf', 'bytes:\\xc3')
    """
    try:
        return token.decode()
    except UnicodeDecodeError:
        return PREFIX + in_bytes(token)


def _lists(values: Iterator[Row]) -> list[str]:
    """Return what stands between the brackets of each list; in parts, which take less memory."""
    columns: tuple[list[str], ...] = tuple([] for _ in NAMES)
    while block := list(islice(values, _AT_ONCE)):
        for column, part in zip(columns, lists(block), strict=True):
            column.append(part)
    return [",".join(column) for column in columns]
