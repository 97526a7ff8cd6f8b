"""What a Responses request asks of its answer."""

from emulator.answers.ask import Ask, ParamNames
from emulator.apis.chat.asking import response_schema, schema_texts
from emulator.apis.chat.calls import SchemaParam, calls_of
from emulator.apis.chat.request import ChatCompletionRequest
from emulator.apis.responses.schema.request import ResponsesRequest

LOGPROBS = "message.output_text.logprobs"
NAMES = ParamNames(
    limit="max_output_tokens",
    effort="reasoning.effort",
    format="text.format",
    schema="text.format.schema",
)


def response_ask(request: ResponsesRequest, chat: ChatCompletionRequest, param: SchemaParam) -> Ask:
    """Return what a request asks; every stream of this API ends with its usage.

    Args:
        request: The request.
        chat: The chat that asks for the same.
        param: Returns the path of the schema of a tool of the chat.

    Raises:
        APIError: A tool that has to be called is not among the tools.
    """
    reasoning = request.reasoning
    summary = reasoning and (reasoning.summary or reasoning.generate_summary)
    offered, must_call, names_call, most_calls = calls_of(chat, param, strict=True)
    wanted = chat.response_format
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
        stops=(request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ()),
        logprobs=(request.top_logprobs or 0) if LOGPROBS in (request.include or ()) else None,
        offered=offered,
        must_call=must_call,
        names_call=names_call,
        most_calls=most_calls,
        schema=response_schema(wanted),
        schema_texts=schema_texts(wanted, chat.messages),
        include_usage=bool(request.stream),
        wants_summary=summary is not None,
        can_show_reasoning=True,
        says_failed=True,
        names=NAMES,
    )
