"""What vLLM 0.32 takes and refuses of a body, and how OpenAI would write what it takes."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeAlias

from annotated_types import MaxLen
from pydantic import BaseModel, ConfigDict, ValidationError

from emulator.contract.errors import APIError
from emulator.dialects.vllm_words import bad_request, invalid, unnamed
from tokenizer import encoding_for

MAX_LOGPROBS = 20
MAX_TOLD = 16  # token ids in a message
MAX_DIGITS = 32
Body: TypeAlias = dict[str, Any]
Rule: TypeAlias = Callable[[Body], APIError | None]
_ROLES = frozenset(("developer", "system", "user", "assistant", "tool", "function"))


class Sampling(BaseModel):
    """The types of the parameters that have rules, in vLLM's order; texts of numbers will do."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    max_tokens: int | None = None
    n: int | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: str | Annotated[list[str], MaxLen(4)] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = None
    prompt_logprobs: int | None = None
    priority: int | None = None


class ChatSampling(Sampling):
    """Those of a chat."""

    messages: list[Any]
    logprobs: bool | None = None
    top_logprobs: int | None = None
    max_completion_tokens: int | None = None


class CompletionSampling(Sampling):
    """Those of a legacy completion."""

    prompt: Any = None
    logprobs: int | None = None
    echo: bool | None = None
    suffix: str | None = None


SCHEMAS: Mapping[str, type[Sampling]] = {
    "/v1/chat/completions": ChatSampling,
    "/v1/completions": CompletionSampling,
}


def typed(path: str, data: Body) -> Body:
    """Return a body with numbers in place of their texts.

    Raises:
        APIError: A parameter is of another type.
    """
    schema = SCHEMAS[path]
    try:
        parsed = schema.model_validate(data)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False), data) from None
    known = schema.model_fields.keys() & data.keys()
    return data | {name: getattr(parsed, name) for name in known}


def refuse(path: str, data: Body, max_model_len: int, model: str) -> None:
    """Refuse what vLLM refuses of a body whose types are right.

    Raises:
        APIError: In vLLM's words.
    """
    rules = _CHAT_RULES if path == "/v1/chat/completions" else _COMPLETION_RULES
    for rule in (*rules, *_RULES):
        if error := rule(data):
            raise error
    for error in (_limits(data, max_model_len), _vocabulary(data, model)):
        if error:
            raise error


def as_openai(path: str, data: Body) -> Body:
    """Return a body that vLLM takes with what OpenAI would take in its place."""
    data = {name: value for name, value in data.items() if value is not None}
    if path == "/v1/chat/completions":
        data["messages"] = [_known_role(message) for message in data["messages"]]
        if not data.get("tools"):
            data.pop("tools", None)
            data.pop("tool_choice", None)
            data.pop("parallel_tool_calls", None)
    else:
        data.pop("best_of", None)
    return data


def _known_role(message: Any) -> Any:  # noqa: ANN401 - whatever a client sends
    """Return a message of a role that vLLM's templates write as they find it."""
    if not isinstance(message, dict) or message.get("role") in _ROLES:
        return message
    return message | {"role": "user"} if isinstance(message.get("role"), str) else message


# --------------------------------------------------------------------------------------
# Rules of chats
# --------------------------------------------------------------------------------------


def _chat_form(data: Body) -> APIError | None:
    if data.get("stream_options") is not None and not data.get("stream"):
        return bad_request(
            "Stream options can only be defined when `stream=True`.", "stream_options"
        )
    top = data.get("top_logprobs")
    if top and not data.get("logprobs"):
        return bad_request(
            "when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs"
        )
    if top is not None and top > MAX_LOGPROBS:
        return _too_many_logprobs(top)
    return _tool_choice(data) or (None if data["messages"] else _NO_MESSAGES())


def _tool_choice(data: Body) -> APIError | None:
    choice, tools = data.get("tool_choice"), data.get("tools")
    if choice in (None, "none"):
        return None
    if not tools:
        return bad_request("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if not isinstance(choice, dict) or not isinstance(tools, list):
        return None
    wanted = choice.get("function")
    names = [tool.get("function") for tool in tools if isinstance(tool, dict)]
    if isinstance(wanted, dict) and all(
        not isinstance(each, dict) or each.get("name") != wanted.get("name") for each in names
    ):
        return bad_request(
            "The tool specified in `tool_choice` does not match any of the specified `tools`",
            "tool_choice",
        )
    return None


def _NO_MESSAGES() -> APIError:  # noqa: N802 - a sentence
    return unnamed(
        "Cannot apply chat template to an empty conversation. Provide at least one message."
    )


# --------------------------------------------------------------------------------------
# Rules of legacy completions
# --------------------------------------------------------------------------------------


def _completion_form(data: Body) -> APIError | None:
    prompt = data.get("prompt")
    if prompt is None or prompt == "":
        message = "Either prompt or prompt_embeds must be provided and non-empty."
        return bad_request(message, "prompt")
    if data.get("stream_options") is not None and not data.get("stream"):
        return bad_request(
            "Stream options can only be defined when `stream=True`.", "stream_options"
        )
    if prompt == []:
        return unnamed("You must pass at least one prompt")
    if data.get("suffix"):
        message = "suffix is only supported for models with FIM completion rendering"
        return APIError(message, param="suffix", type="BadRequestError")
    logprobs = data.get("logprobs") or 0
    return _too_many_logprobs(logprobs) if logprobs > MAX_LOGPROBS else None


def _too_many_logprobs(wanted: int) -> APIError:
    return bad_request(
        f"Requested sample logprobs of {wanted}, which is greater than max allowed: {MAX_LOGPROBS}",
        "logprobs",
        wanted,
    )


# --------------------------------------------------------------------------------------
# Rules of both
# --------------------------------------------------------------------------------------


def _choices(data: Body) -> APIError | None:
    n = data.get("n")
    if n is not None and n < 1:
        return unnamed(f"n must be at least 1, got {n}.")
    for name in ("presence_penalty", "frequency_penalty"):
        penalty = data.get(name)
        if penalty is not None and not -2 <= penalty <= 2:
            return unnamed(f"{name} must be in [-2, 2], got {penalty}.")
    return None


def _randomness(data: Body) -> APIError | None:
    temperature, top_p, top_k = data.get("temperature"), data.get("top_p"), data.get("top_k")
    if temperature is not None and temperature < 0:
        message = f"temperature must be non-negative, got {temperature}."
        return bad_request(message, "temperature", temperature)
    if temperature is not None and not temperature <= 2:
        message = f"temperature must be in [0, 2], got {temperature}."
        return bad_request(message, "temperature", temperature)
    if top_p is not None and not 0 < top_p <= 1:
        return bad_request(f"top_p must be in (0, 1], got {top_p}.", "top_p", top_p)
    if top_k is not None and top_k < -1:
        return unnamed(f"top_k must be 0 (disable), or at least 1, got {top_k}.")
    if temperature == 0 and (data.get("n") or 1) > 1:
        return unnamed(f"n must be 1 when using greedy sampling, got {data['n']}.")
    return None


def _structured(data: Body) -> APIError | None:
    wanted = data.get("structured_outputs")
    kinds = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
    if isinstance(wanted, dict) and sum(bool(wanted.get(kind)) for kind in kinds) > 1:
        return unnamed(
            "You can only use one kind of constraints for structured outputs ('json', 'regex' or "
            "'choice')."
        )
    return None


def _limits(data: Body, max_model_len: int) -> APIError | None:
    """Refuse a limit that the context has no room for, whatever the prompt is."""
    limit = data.get("max_completion_tokens")
    if limit is None:
        limit = data.get("max_tokens")
    if limit is None:
        return None
    if limit < 1 and not (limit == 0 and data.get("echo")):
        return bad_request(f"max_tokens must be at least 1, got {limit}.", "max_tokens", limit)
    if limit > max_model_len:
        return bad_request(
            f"max_tokens={limit} cannot be greater than max_model_len={max_model_len}. Please "
            "request fewer output tokens.",
            "max_tokens",
            limit,
        )
    least = data.get("min_tokens") or 0
    if least > limit:
        return unnamed(f"min_tokens must be less than or equal to max_tokens={limit}, got {least}.")
    return None


def _vocabulary(data: Body, model: str) -> APIError | None:
    """Refuse token ids that the model's vocabulary does not have."""
    biases, prompt = data.get("logit_bias"), data.get("prompt")
    if not biases and not isinstance(prompt, list):
        return None
    size = encoding_for(model).n_vocab
    given = (int(key[:MAX_DIGITS]) for key in biases or () if key.isdecimal())
    wrong = [token for token in given if token >= size][:MAX_TOLD]
    if wrong:
        return bad_request(
            f"token_id(s) {wrong} in logit_bias contain out-of-vocab token ids. Vocabulary size: "
            f"{size}",
            "logit_bias",
            wrong,
        )
    for part in prompt if isinstance(prompt, list) else ():
        for token in part if isinstance(part, list) else (part,):
            if isinstance(token, int) and token >= size:
                return unnamed(f"Token id {token} is out of vocabulary")
    return None


def _prompt_logprobs(data: Body) -> APIError | None:
    top = data.get("prompt_logprobs")
    if top is None:
        return None
    if data.get("stream"):
        return bad_request(
            "`prompt_logprobs` are not available when `stream=True`.", "prompt_logprobs"
        )
    if top < 0:
        message = f"`prompt_logprobs` must be a positive value, got {top}."
        return bad_request(message, "prompt_logprobs", top)
    if top > MAX_LOGPROBS:
        message = f"Requested prompt logprobs of {top}, which is greater than max allowed: "
        return bad_request(f"{message}{MAX_LOGPROBS}", "prompt_logprobs", top)
    return None


_CHAT_RULES: tuple[Rule, ...] = (_chat_form,)
_COMPLETION_RULES: tuple[Rule, ...] = (_completion_form,)
_RULES: tuple[Rule, ...] = (_prompt_logprobs, _structured, _choices, _randomness)
