"""What a Responses request asks of its answer."""

from emulator.answers.ask import Ask, ContextWords, ParamNames
from emulator.apis.chat.asking import response_schema, schema_texts
from emulator.apis.chat.calls import NO_CALLS, SchemaParam, calls_of
from emulator.apis.chat.request import ChatCompletionRequest
from emulator.apis.responses.compaction import asks_to_compact
from emulator.apis.responses.ids import id_end
from emulator.apis.responses.schema.request import CompactRequest, ResponsesRequest

LOGPROBS = "message.output_text.logprobs"
TOO_LONG = (
    "Your input exceeds the context window of this model. Please adjust your input and try again."
)
NAMES = ParamNames(
    limit="max_output_tokens",
    effort="reasoning.effort",
    format="text.format",
    schema="text.format.schema",
    context=ContextWords(TOO_LONG, TOO_LONG, param="input"),
)


def response_ask(request: ResponsesRequest, chat: ChatCompletionRequest, param: SchemaParam) -> Ask:
    """Return what a request asks; every stream of this API ends with its usage.

    What is left of a conversation is a text that nobody sees, so that neither tools nor formats,
    stops or log probabilities say anything to it.

    Args:
        request: The request.
        chat: The chat that asks for the same.
        param: Returns the path of the schema of a tool of the chat.

    Raises:
        APIError: A tool that has to be called is not among the tools.
    """
    reasoning = request.reasoning
    summary = reasoning and (reasoning.summary or reasoning.generate_summary)
    compacts = asks_to_compact(request)
    offered, must_call, names_call, most_calls = (
        NO_CALLS if compacts else calls_of(chat, param, strict=True)
    )
    wanted = None if compacts else chat.response_format
    stop = None if compacts else request.stop
    shows_logprobs = LOGPROBS in (request.include or ()) and not compacts
    return Ask(
        model=request.model,
        stream=bool(request.stream),
        seed=request.seed,
        user=request.user,
        token_limit=request.max_output_tokens,
        min_tokens=request.min_tokens or 0,
        generates=request.generate is not False,
        ignore_eos=request.ignore_eos,
        effort=chat.reasoning_effort,
        stops=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        logprobs=(request.top_logprobs or 0) if shows_logprobs else None,
        offered=offered,
        must_call=must_call,
        names_call=names_call,
        most_calls=most_calls,
        schema=response_schema(wanted),
        schema_texts=schema_texts(wanted, chat.messages),
        include_usage=bool(request.stream),
        wants_summary=summary is not None and not compacts,
        can_show_reasoning=not compacts,
        says_failed=True,
        id_end=id_end(stored=request.store is not False),
        names=NAMES,
    )


def compaction_ask(request: CompactRequest, chat: ChatCompletionRequest) -> Ask:
    """Return what a request to compact asks; `chat` asks for the same."""
    return Ask(
        model=request.model,
        seed=request.seed,
        effort=chat.reasoning_effort,
        id_end=id_end(stored=False),
        names=NAMES,
    )
