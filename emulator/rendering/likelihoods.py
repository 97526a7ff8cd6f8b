"""Log probabilities as JSON, in the shape that chat completions and responses share."""

import json
from functools import lru_cache

from emulator.answers.logprobs import Likelihood


def likelihood_json(likelihood: Likelihood) -> str:
    """Return a token of an answer, how likely it was, and what else was likely."""
    token, top = likelihood.named()
    itself = token, likelihood.logprob, likelihood.utf8
    likely = [itself if other == itself[:2] else other for other in top]
    others = ",".join([_likely(*other) + "}" for other in likely])
    return f'{_likely(*itself)},"top_logprobs":[{others}]}}'


def _likely(token: str, logprob: float, utf8: bytes | None = None) -> str:
    """Return a TopLogprob as JSON, without its last brace."""
    start, end = _around_logprob(token, utf8)
    return f"{start}{logprob}{end}"


@lru_cache(4096)
def _around_logprob(token: str, utf8: bytes | None) -> tuple[str, str]:
    told = ",".join(map(str, token.encode() if utf8 is None else utf8))
    return f'{{"token":{json.dumps(token)},"logprob":', f',"bytes":[{told}]'
