"""OpenAI's models that reason, and the parameters that they do not take for it."""

import re
from functools import lru_cache
from typing import NamedTuple

from emulator.apis.chat.request import ChatCompletionRequest
from emulator.contract.errors import APIError

_match_family = re.compile(
    r"(?:ft:)?(?:(?P<o>o[134])|gpt-(?P<major>[5-9])(?:\.(?P<minor>\d{1,2}))?)(?P<rest>[-:].*)?"
).fullmatch
# Those of gpt-5.1 and later can be told not to reason, which is the default up to gpt-5.4; these
# variants cannot.
_FIRST_WITHOUT, _LAST_BY_DEFAULT = (5, 1), (5, 4)
_ALWAYS_REASON = ("-pro", "-codex", "-chat")
_TAKE_STOP = ("o1", "o3-mini")


class ReasoningModel(NamedTuple):
    """What is known of a reasoning model by its name.

    Args:
        can_rest: Whether it takes the effort ``none``.
        rests: Whether it takes that for no effort.
    """

    can_rest: bool
    rests: bool

    def reasons(self, effort: str | None) -> bool:
        """Tell whether it reasons with this effort, None for its default."""
        return not (self.rests if effort is None else self.can_rest and effort == "none")


@lru_cache(maxsize=1024)
def reasoning_model(model: str) -> ReasoningModel | None:
    """Return what is known of a model that reasons, None if it never does."""
    family = _match_family(model)
    if family is None:
        return None
    rest = family["rest"] or ""
    if family["o"]:
        return ReasoningModel(can_rest=False, rests=False)
    if family["minor"] is None and rest.startswith("-chat"):
        return None
    version = int(family["major"]), int(family["minor"] or 0)
    can_rest = version >= _FIRST_WITHOUT and not rest.startswith(_ALWAYS_REASON)
    return ReasoningModel(can_rest, can_rest and version <= _LAST_BY_DEFAULT)


def refuse_unsupported(chat: ChatCompletionRequest, model: ReasoningModel) -> None:
    """Refuse the parameters of a chat that its model does not take, or not while it reasons.

    A parameter with its default value is taken, but for ``max_tokens``.

    Raises:
        APIError: In OpenAI's words.
    """
    if chat.max_tokens is not None:
        instead = " Use 'max_completion_tokens' instead."
        raise unsupported("max_tokens", more=instead)
    if chat.stop is not None and not chat.model.removeprefix("ft:").startswith(_TAKE_STOP):
        raise unsupported("stop")
    if chat.logit_bias:
        raise unsupported("logit_bias")
    if model.reasons(chat.reasoning_effort):
        _refuse_sampling(chat, model)


def _refuse_sampling(chat: ChatCompletionRequest, model: ReasoningModel) -> None:
    """Refuse what a model does not take while it reasons."""
    if chat.temperature not in (None, 1):
        raise APIError(
            f"Unsupported value: 'temperature' does not support {chat.temperature} with this "
            "model. Only the default (1) value is supported.",
            param="temperature",
            code="unsupported_value",
        )
    if chat.top_p not in (None, 1):
        raise unsupported("top_p")
    for name in ("presence_penalty", "frequency_penalty"):
        if getattr(chat, name):
            raise unsupported(name)
    if chat.logprobs and not model.can_rest:
        message = "You are not allowed to request logprobs from this model."
        raise APIError(message, status=403)
    if chat.logprobs:
        raise unsupported("logprobs")


def unsupported(
    param: str, code: str | None = "unsupported_parameter", *, more: str = ""
) -> APIError:
    """Refuse a parameter that a model does not take."""
    return APIError(
        f"Unsupported parameter: '{param}' is not supported with this model.{more}",
        param=param,
        code=code,
    )
