"""Log probabilities as legacy completions tell them: four lists of the same length."""

from collections.abc import Iterable, Iterator
from json.encoder import encode_basestring_ascii as quoted
from typing import NamedTuple

from emulator.answers.logprobs import Likelihood


class Row(NamedTuple):
    """The values of one token as JSON, one for each list."""

    tokens: str
    token_logprobs: str
    top_logprobs: str
    text_offset: str


NAMES = Row._fields
PREFIX = "bytes:"  # of tokens that are no whole characters


def row(likelihood: Likelihood, offset: int) -> Row:
    """Return the values of a token that begins after so many characters."""
    token, top = likelihood.named(PREFIX)
    likely = ",".join([f"{quoted(other)}:{value:.6f}" for other, value in top])
    return Row(quoted(token), f"{likelihood.logprob:.6f}", f"{{{likely}}}", f"{offset}")


def rows(entries: Iterable[Likelihood], offset: int) -> Iterator[Row]:
    """Yield the values of some tokens, of which the first begins after so many characters."""
    for likelihood in entries:
        yield row(likelihood, offset)
        offset += len(likelihood.token)


def pieces(entries: Iterable[Likelihood], offset: int) -> Iterator[str]:
    """Yield the log probabilities of some tokens as JSON; `offset` counts characters."""
    before = "{"
    for name, values in zip(NAMES, lists(rows(entries, offset)), strict=True):
        yield f'{before}"{name}":[{values}]'
        before = ","
    yield "}"


def lists(values: Iterable[Row]) -> list[str]:
    """Return what stands between the brackets of each list."""
    columns = list(zip(*values, strict=True)) or [()] * len(NAMES)
    return [",".join(column) for column in columns]
