"""Log probabilities as JSON, in the shape that chat completions and responses share."""

import json
from functools import lru_cache

from emulator.answers.logprobs import Likelihood


def likelihood_json(likelihood: Likelihood) -> str:
    """Return a token of an answer, how likely it was, and what else was likely."""
    token, logprob, top = likelihood
    others = ",".join([_likely(*other) + "}" for other in top])
    return f'{_likely(token, logprob)},"top_logprobs":[{others}]}}'


def _likely(token: str, logprob: float) -> str:
    """Return a TopLogprob as JSON, without its last brace."""
    start, end = _around_logprob(token)
    return f"{start}{logprob}{end}"


@lru_cache(4096)
def _around_logprob(token: str) -> tuple[str, str]:
    utf8 = ",".join(map(str, token.encode()))
    return f'{{"token":{json.dumps(token)},"logprob":', f',"bytes":[{utf8}]'
