"""The attacks: what each sends, and which answers it may get. Data for `benchmarks.hostile`."""

import base64
import gzip
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat

import zstandard

from benchmarks.kit.attacker import CUT, UNANSWERED, Call

CHAT = "/v1/chat/completions"
LEGACY = "/v1/completions"
RESPONSES = "/v1/responses"
INPUT_TOKENS = "/v1/responses/input_tokens"
EMBEDDINGS = "/v1/embeddings"
TOKENIZE = "/tokenize"
DETOKENIZE = "/detokenize"

Answers = Callable[[int], bool]
KB, MB = 1000, 1_000_000
INSTANT = {"X-TTFT-MS": "0", "X-ITL-MS": "0", "X-OUTPUT-LENGTH": "2"}


def refused(status: int) -> bool:
    """Tell whether the answer refuses: the request is at fault, or nobody is free."""
    return 400 <= status < 500 or status == 503


def served(status: int) -> bool:
    """Tell whether the answer is what was asked for."""
    return status == 200


def answered(status: int) -> bool:
    """Tell whether there is any answer but a fault of the server's: the request is valid."""
    return served(status) or refused(status)


def ignored(status: int) -> bool:
    """Allow no answer, or a cut, too: the client does not ask for one, or not in a whole way."""
    return answered(status) or status in (CUT, UNANSWERED)


@dataclass(frozen=True)
class Attack:
    """One row of the table.

    Args:
        told: What it does, in a few words.
        calls: Makes what is sent at once; called in the attacker's process.
        allowed: The answers that it may get.
        lasts_s: How long a round is where no answer is to be waited for; None for until it is here.
    """

    told: str
    calls: Callable[[], Sequence[Call]]
    allowed: Answers = refused
    lasts_s: float | None = None


# --------------------------------------------------------------------------------------
# Requests
# --------------------------------------------------------------------------------------


def head(path: str, size: int, **extra: str) -> bytes:
    """Return a request's head; it asks for two tokens at once unless `extra` says otherwise."""
    named = {name.replace("_", "-"): value for name, value in extra.items()}
    fields = {"Content-Type": "application/json", "Content-Length": str(size), **INSTANT, **named}
    lines = [f"POST {path} HTTP/1.1", "Host: attacked", *(f"{k}: {v}" for k, v in fields.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def post(path: str, body: str | Mapping[str, object], **extra: str) -> list[Call]:
    """Return the call of one request."""
    data = (body if isinstance(body, str) else json.dumps(body)).encode()
    return [Call([head(path, len(data), **extra), data])]


def listed(item: str, size: int) -> str:
    """Return a JSON array of equal items, of `size` bytes."""
    return f"[{','.join(repeat(item, size // (len(item) + 1)))}]"


def spelled(size: int, item: Callable[[int], str]) -> str:
    """Return items that differ, with commas between them, of about `size` bytes."""
    return ",".join(map(item, range(size // (len(item(0)) + 5))))


def chat(text: str = "hi", /, **parameters: object) -> dict[str, object]:
    """Return a body with one message, and `parameters`."""
    return {"model": "gpt-4", "messages": [{"role": "user", "content": text}], **parameters}


def chat_with(raw: str) -> str:
    """Return a chat with more JSON before its end, written as it is."""
    return f"{json.dumps(chat())[:-1]},{raw}}}"


def schema(value: object, **parameters: object) -> dict[str, object]:
    """Return a chat that asks for an instance of a schema."""
    named = {"name": "x", "schema": value}
    return chat(response_format={"type": "json_schema", "json_schema": named}, **parameters)


def messages(item: str, size: int) -> str:
    """Return a chat of equal messages."""
    return f'{{"model":"gpt-4","messages":{listed(item, size)}}}'


def parts(item: object, count: int) -> str:
    """Return a chat of one message with equal parts."""
    raw = ",".join(repeat(json.dumps(item), count))
    return f'{{"model":"gpt-4","messages":[{{"role":"user","content":[{raw}]}}]}}'


def picture(data: bytes, kind: str = "png", rest: str = "") -> dict[str, object]:
    """Return the part of a message that holds a picture, `rest` after its base64."""
    url = f"data:image/{kind};base64,{base64.b64encode(data).decode()}{rest}"
    return {"type": "image_url", "image_url": {"url": url}}


def png(size: int = 0) -> bytes:
    """Return the head of a PNG, with so many bytes after it."""
    ihdr = struct.pack(">I4sIIBBBBB", 13, b"IHDR", 4000, 3000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + ihdr + bytes(range(250)) * (size // 250)


def svg(size: int = 0) -> bytes:
    """Return a picture in SVG whose sizes are no integers, with so many bytes of a comment."""
    start = '<svg xmlns="http://www.w3.org/2000/svg" width="10.5" height="9.5">'
    return f"{start}<!--{'x' * size}--></svg>".encode()


def nested(opening: str, closing: str, depth: int) -> str:
    """Return JSON that is `depth` levels deep, an object in the innermost."""
    return opening * depth + "{}" + closing * depth


def numbered(size: int) -> str:
    """Return a JSON object of so many bytes, with a number for each key."""
    return f"{{{spelled(size, lambda number: f'{chr(34)}{number}{chr(34)}:1')}}}"


# --------------------------------------------------------------------------------------
# On the wire
# --------------------------------------------------------------------------------------


def long_header() -> list[Call]:
    """Send a header of 50 MB."""
    value = "x" * 50 * MB
    return post(CHAT, chat(), X_Long=value)


def many_headers() -> list[Call]:
    """Send 100,000 headers."""
    return post(CHAT, chat(), **{f"X-A{i}": "1" for i in range(100_000)})


def endless_headers() -> list[Call]:
    """Send a header every half second, and no end of them."""
    start = b"POST /v1/chat/completions HTTP/1.1\r\nHost: attacked\r\n"
    return [Call([start, *(b"X-A%d: 1\r\n" % i for i in range(60))], every_s=0.5)]


def silent_head() -> list[Call]:
    """Send the first half of a head, and nothing more."""
    return [Call([b"POST /v1/chat/completions HTTP/1.1\r\nHost: att"])]


def pipelined(count: int) -> list[Call]:
    """Send requests one after another, and read no answer."""
    return [Call([b"GET /health HTTP/1.1\r\nHost: attacked\r\n\r\n" * count], reads=False)]


def slow_body() -> list[Call]:
    """Send a body on each of 50 connections, one byte a second."""
    body = json.dumps(chat()).encode()
    pieces = [bytes([byte]) for byte in body]
    return [Call([head(CHAT, len(body)), *pieces], every_s=1.0)] * 50


def missing_body() -> list[Call]:
    """Declare 49 MB on each of 100 connections, and send one byte."""
    return [Call([head(CHAT, 49 * MB), b"{"])] * 100


def small_chunks() -> list[Call]:
    """Send a body of 2 MB in chunks of one byte."""
    start = head(CHAT, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    body = json.dumps(chat("x" * 2 * MB)).encode()
    return [Call([start, b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"])]


def leaving() -> list[Call]:
    """Send 20 MB on each of 10 connections, and go away while they are looked at."""
    (call,) = post(CHAT, messages("{}", 20 * MB))
    return [Call(call.parts, leaves_s=0.3 + number * 0.05) for number in range(10)]


def unread_stream() -> list[Call]:
    """Ask for 10 streams of 131,072 tokens at once, and read nothing."""
    (call,) = post(CHAT, chat(stream=True), X_OUTPUT_LENGTH="131072")
    return [Call(call.parts, reads=False)] * 10


def bomb(encoding: str, size: int) -> list[Call]:
    """Send 20 bodies that are `size` bytes once they are decoded, and a thousandth of that now."""
    plain = json.dumps(chat("@")).encode().replace(b"@", b" " * size)
    data = gzip.compress(plain) if encoding == "gzip" else zstandard.compress(plain)
    return [Call([head(CHAT, len(data), Content_Encoding=encoding), data])] * 20


def frames(payload: bytes, count: int) -> list[Call]:
    """Send frames of a websocket one after another, masked with zeros."""
    offer = head(RESPONSES, 0).replace(b"POST", b"GET").replace(b"Content-Length: 0\r\n", b"")
    upgrade = (
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    )
    frame = b"\x81\xff" + struct.pack(">Q", len(payload)) + bytes(4) + payload
    return [Call([offer.removesuffix(b"\r\n") + upgrade, *[frame] * count], reads=False)]


def model_names() -> list[Call]:
    """Send 32 names of 1 MB, each another one."""
    return [post(CHAT, {**chat(), "model": f"{number:03}" * 333_333})[0] for number in range(32)]


# --------------------------------------------------------------------------------------
# The table
# --------------------------------------------------------------------------------------

LARGE_MULTIPLES = [{"multipleOf": 10**299 + number} for number in range(3000)]
FRACTIONS = [{"multipleOf": number + 1 / 3} for number in (1e15, 1e16 + 2, 3e17, 7e99)]
SCHEMA = '"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":%s}}'
ANY_OF = '{"anyOf":[{},{}]}'
LOGPROBS = {"logprobs": True, "top_logprobs": 20}
ECHO = {"model": "gpt-4", "echo": True}
JSON_OBJECT = {"type": "json_object"}
TOOLS_OF_ONE = {"type": "function", "function": {"name": "look", "parameters": {}}}
CLOSED = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
STRICT_TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "strict": True,
        "parameters": {
            **CLOSED,
            "properties": {f"p{number}": CLOSED for number in range(400)},
            "required": [f"p{number}" for number in range(400)],
        },
    },
}
TOOL = '{"type":1}'
USER = '{"role":"user","content":"hi"}'
BOTH = '{"role":"user","content":"hi there"},{"role":"assistant","content":"hello"}'


def sizes(
    name: str, told: str, make: Callable[[int], list[Call]], allowed: Answers, *in_kb: int
) -> dict[str, Attack]:
    """Return the same attack in several sizes."""
    written = {size: f"{size / KB:g} MB" if size >= 900 else f"{size} KB" for size in in_kb}
    return {
        f"{name}-{text.replace(' ', '').lower()}": Attack(
            f"{told}, {text}", partial(make, size * KB), allowed
        )
        for size, text in written.items()
    }


ATTACKS: dict[str, Attack] = {
    # Messages
    **sizes(
        "empty-messages",
        "`messages: [{}, {}, ...]`",
        lambda size: post(CHAT, messages("{}", size)),
        refused,
        *(60, 900, 3 * KB, 48 * KB),
    ),
    "empty-messages-8x48mb": Attack(
        "the same from 8 connections at once, 48 MB each",
        lambda: post(CHAT, messages("{}", 48 * MB)) * 8,
    ),
    "small-messages-30mb": Attack(
        "valid small messages, 30 MB", lambda: post(CHAT, messages(BOTH, 30 * MB))
    ),
    "small-messages-60kb": Attack(
        "valid small messages, 60 KB", lambda: post(CHAT, messages(USER, 60 * KB)), answered
    ),
    "small-pngs": Attack("300,000 small PNGs", lambda: post(CHAT, parts(picture(png()), 300_000))),
    "parts": Attack(
        "1,000,000 parts of text, 35 MB",
        lambda: post(CHAT, parts({"type": "text", "text": "x"}, MB)),
    ),
    "seed-prompt": Attack(
        "`seed` with 49 MB of prompt", lambda: post(CHAT, chat("hello " * 8_160_000, seed=1))
    ),
    "prompts-64kb": Attack(
        "legacy `prompt` of 16,000 strings in 64 KB, streamed",
        lambda: post(
            LEGACY,
            {"model": "gpt-4", "prompt": ["a"] * 16_000, "stream": True},
        ),
    ),
    # Names
    "model-stream": Attack(
        "`model` of 1 MB, a stream of 1,000 tokens at ITL 0",
        lambda: post(CHAT, {**chat(stream=True), "model": "x" * MB}, X_OUTPUT_LENGTH="1000"),
    ),
    "model-60kb": Attack(
        "`model` of 60 KB, a stream of 20,000 tokens at ITL 0",
        lambda: post(CHAT, {**chat(stream=True), "model": "x" * 60 * KB}, X_OUTPUT_LENGTH="20000"),
    ),
    "model-names": Attack("32 `model` of 1 MB, each another", model_names),
    # Schemas
    "multiples": Attack(
        "0.95 MB of 3,000 `multipleOf` in `allOf`",
        lambda: post(CHAT, schema({"type": "integer", "allOf": LARGE_MULTIPLES})),
    ),
    "multiples-few": Attack(
        "`allOf` of 40 `multipleOf` above 10**299",
        lambda: post(CHAT, schema({"type": "integer", "allOf": LARGE_MULTIPLES[:40]})),
    ),
    "fractions": Attack(
        "`multipleOf` of large fractions",
        lambda: post(CHAT, schema({"type": "number", "allOf": FRACTIONS})),
        answered,
    ),
    "const-1e999": Attack(
        '`{"const": 1e999}`',
        lambda: post(CHAT, json.dumps(schema({"const": 1.5})).replace("1.5", "1e999")),
    ),
    "instances": Attack(
        "12 requests with `n: 128` and `minItems: 4900`",
        lambda: (
            post(
                CHAT,
                schema({"type": "array", "minItems": 4900, "items": {"type": "integer"}}, n=128),
            )
            * 12
        ),
        answered,
    ),
    "any-of-20mb": Attack(
        "nested `anyOf`, 20 MB",
        lambda: post(
            CHAT,
            chat_with(SCHEMA % f'{{"anyOf":{listed(ANY_OF, 20 * MB)}}}'),
        ),
    ),
    "all-of-2mb": Attack(
        "`allOf` of 100 `allOf` of 1,000 schemas, 1.5 MB",
        lambda: post(
            CHAT,
            schema({"type": "integer", "allOf": [{"allOf": [{"minimum": 1}] * 1000}] * 100}),
        ),
        answered,
    ),
    "json-text": Attack(
        "`json_object` with 1,000,000 `{` in a message",
        lambda: post(CHAT, chat("json " + "{" * MB, response_format=JSON_OBJECT)),
        answered,
    ),
    "json-text-deep": Attack(
        "`json_object` with 60 KB of unfinished objects in a message",
        lambda: post(CHAT, chat("json " + '{"a":[' * 10_000, response_format=JSON_OBJECT)),
        answered,
    ),
    "strict-tools": Attack(
        "128 strict tools of 400 objects each, 5 MB",
        lambda: post(CHAT, chat(tools=[STRICT_TOOL] * 128)),
        answered,
    ),
    "enum-10mb": Attack(
        "an `enum` of 10 MB",
        lambda: post(CHAT, chat_with(SCHEMA % f'{{"enum":{listed("1", 10 * MB)}}}')),
        answered,
    ),
    "properties-60kb": Attack(
        "a schema of 2,500 required properties in 60 KB, `n: 128`",
        lambda: post(
            CHAT,
            schema(
                {
                    "type": "object",
                    "properties": {f"p{number}": {} for number in range(2500)},
                    "required": [f"p{number}" for number in range(2500)],
                },
                n=128,
            ),
        ),
        answered,
    ),
    "pattern": Attack(
        "a `pattern` with nested repeats",
        lambda: post(CHAT, schema({"type": "string", "pattern": "^((a+)+(b?c*)+){9,}$"}, n=16)),
        answered,
    ),
    "tools-20mb": Attack(
        "500,000 tools, 20 MB",
        lambda: post(CHAT, chat_with(f'"tools":{listed(TOOL, 20 * MB)}')),
    ),
    "tools-many": Attack(
        "20,000 valid tools, 1.5 MB",
        lambda: post(
            CHAT,
            chat(
                tools=[
                    {"type": "function", "function": {"name": f"f{number}", "parameters": {}}}
                    for number in range(20_000)
                ]
            ),
        ),
    ),
    # JSON
    **sizes(
        "unknown-key",
        "an unknown key with `[[],[],...]`",
        lambda size: post(CHAT, chat_with(f'"x":{listed("[]", size)}')),
        answered,
        *(60, 600, 6 * KB, 48 * KB),
    ),
    "deep-60kb": Attack(
        "30,000 arrays in each other",
        lambda: post(CHAT, chat_with(f'"x":{nested("[", "]", 30_000)}')),
    ),
    "deep-20mb": Attack(
        "10,000,000 arrays in each other",
        lambda: post(CHAT, chat_with(f'"x":{nested("[", "]", 10 * MB)}')),
    ),
    "deep-schema": Attack(
        "a schema of 190 levels, 16 times",
        lambda: (
            post(
                CHAT,
                chat_with(SCHEMA % nested('{"type":"array","minItems":1,"items":', "}", 190)),
            )
            * 16
        ),
        answered,
    ),
    "digits-1mb": Attack(
        "a `seed` of 1,000,000 digits", lambda: post(CHAT, chat_with(f'"seed":{"9" * MB}'))
    ),
    "digits-unknown": Attack(
        "numbers of 4,000 digits in an unknown key, 20 MB",
        lambda: post(CHAT, chat_with(f'"x":{listed("9" * 4000, 20 * MB)}')),
        answered,
    ),
    "key-1mb": Attack("a key of 1 MB", lambda: post(CHAT, chat_with(f'"{"k" * MB}":1')), answered),
    "keys-20mb": Attack(
        "1,500,000 unknown keys, 20 MB",
        lambda: post(CHAT, chat_with(spelled(20 * MB, lambda i: f'"k{i}":1'))),
        answered,
    ),
    "escapes-10mb": Attack(
        "10 MB of `\\u0041`",
        lambda: post(CHAT, json.dumps(chat("@")).replace("@", "\\u0041" * (10 * MB // 6))),
        answered,
    ),
    "surrogates": Attack(
        "half a surrogate in a text",
        lambda: post(CHAT, json.dumps(chat("@")).replace("@", "\\ud83d")),
    ),
    # Parameters
    "logit-bias-10mb": Attack(
        "`logit_bias` of 10 MB",
        lambda: post(CHAT, chat_with(f'"logit_bias":{numbered(10 * MB)}')),
    ),
    "stop-10mb": Attack(
        "`stop` of 2,500,000 strings",
        lambda: post(CHAT, chat_with(f'"stop":{listed("1", 10 * MB)}')),
    ),
    "stop-string": Attack(
        "a `stop` of 10 MB", lambda: post(CHAT, chat(stop="x" * 10 * MB)), answered
    ),
    "metadata-10mb": Attack(
        "`metadata` of 10 MB",
        lambda: post(
            CHAT,
            chat_with(f'"metadata":{numbered(10 * MB)}'),
        ),
    ),
    "choices": Attack(
        "`n: 128` of 131,072 tokens each, whole, with 20 `top_logprobs`",
        lambda: post(CHAT, chat(n=128, **LOGPROBS), X_OUTPUT_LENGTH="131072"),
        answered,
    ),
    "choices-stream": Attack(
        "`n: 128` of 131,072 tokens each, streamed at ITL 0",
        lambda: post(CHAT, chat(n=128, stream=True), X_OUTPUT_LENGTH="131072"),
        ignored,
        lasts_s=6,
    ),
    "logprobs-stream": Attack(
        "8 streams of 131,072 tokens at ITL 0 with 20 `top_logprobs`",
        lambda: post(CHAT, chat(stream=True, **LOGPROBS), X_OUTPUT_LENGTH="131072") * 8,
        ignored,
        lasts_s=6,
    ),
    "logprobs-whole": Attack(
        "262,144 tokens in 2 choices, whole, with 20 `top_logprobs`",
        lambda: post(CHAT, chat(n=2, **LOGPROBS), X_OUTPUT_LENGTH="131072"),
        answered,
    ),
    "tool-calls": Attack(
        "128 calls in each of 128 choices",
        lambda: post(CHAT, chat(n=128, tools=[TOOLS_OF_ONE]), X_TOOL_CALLS="128"),
        answered,
    ),
    "echo": Attack(
        "`echo` of 1 MB in 128 choices",
        lambda: post(LEGACY, {**ECHO, "prompt": "hello " * 166_000, "n": 128}),
        answered,
    ),
    "echo-10mb": Attack(
        "`echo` of 10 MB in 128 choices, streamed",
        lambda: post(
            LEGACY,
            {**ECHO, "prompt": "hello " * 1_660_000, "n": 128, "stream": True},
        ),
        answered,
    ),
    "echo-logprobs": Attack(
        "`echo` of 1 MB with `logprobs`, streamed",
        lambda: post(
            LEGACY,
            {**ECHO, "prompt": "hello " * 166_000, "logprobs": 5, "stream": True},
        ),
        answered,
    ),
    "echo-logprobs-ids": Attack(
        "`echo` of 2,000 prompts of 250 token ids each with `logprobs`, whole",
        lambda: post(
            LEGACY,
            {**ECHO, "prompt": [[5, 6, 7, 8, 9] * 50] * 2000, "logprobs": 1, "max_tokens": 0},
        ),
        answered,
    ),
    "responses-echo": Attack(
        "`instructions` of 10 MB, which three events of a stream repeat",
        lambda: post(
            RESPONSES,
            {
                "model": "gpt-4",
                "input": "hi",
                "instructions": "hello " * 1_660_000,
                "stream": True,
            },
        ),
        answered,
    ),
    # Pictures
    "svg": Attack("an SVG as `image/png`", lambda: post(CHAT, parts(picture(svg()), 1))),
    "svg-large": Attack(
        "an SVG of 9 KB as `image/png`, streamed",
        lambda: post(CHAT, parts(picture(svg(9 * KB)), 1)[:-1] + ',"stream":true}'),
    ),
    "bad-base64": Attack(
        "a picture of 20 MB with a fault at its end",
        lambda: post(CHAT, parts(picture(png(15 * MB), rest="!"), 1)),
    ),
    # Texts
    "spaces-1mb": Attack("1 MB of spaces", lambda: post(CHAT, chat(" " * MB)), answered),
    "letters-1mb": Attack("1 MB of one letter", lambda: post(CHAT, chat("a" * MB)), answered),
    "letters-60kb": Attack(
        "60 KB of one letter", lambda: post(CHAT, chat("a" * 60 * KB)), answered
    ),
    "spaces-60kb": Attack("60 KB of spaces", lambda: post(CHAT, chat(" " * 60 * KB)), answered),
    "8x48mb": Attack("8 prompts of 48 MB at once", lambda: post(CHAT, chat("hello " * 8 * MB)) * 8),
    # The other endpoints
    "responses-48mb": Attack(
        "`input: [{}, {}, ...]`, 48 MB",
        lambda: post(RESPONSES, f'{{"model":"gpt-4","input":{listed("{}", 48 * MB)}}}'),
    ),
    "responses-60kb": Attack(
        "`input: [{}, {}, ...]`, 60 KB",
        lambda: post(RESPONSES, f'{{"model":"gpt-4","input":{listed("{}", 60 * KB)}}}'),
    ),
    "input-tokens-3mb": Attack(
        "the same for `input_tokens`, 3 MB",
        lambda: post(INPUT_TOKENS, f'{{"model":"gpt-4","input":{listed("{}", 3 * MB)}}}'),
    ),
    "input-tokens-text": Attack(
        "`input_tokens` of 10 MB of text",
        lambda: post(INPUT_TOKENS, {"model": "gpt-4", "input": "hello " * 1_660_000}),
        answered,
    ),
    "embedding-ids": Attack(
        "embeddings of 300,000 token ids",
        lambda: post(EMBEDDINGS, {"model": "text-embedding-3-small", "input": [1] * 300_000}),
        answered,
    ),
    "embedding-ids-48mb": Attack(
        "embeddings of 24,000,000 token ids, 48 MB",
        lambda: post(EMBEDDINGS, f'{{"model":"e","input":{listed("1", 48 * MB)}}}'),
    ),
    "embedding-texts": Attack(
        "embeddings of 2,048 texts, each of 3 KB",
        lambda: post(
            EMBEDDINGS, {"model": "text-embedding-3-large", "input": ["hello " * 500] * 2048}
        ),
        answered,
    ),
    "embedding-words": Attack(
        "embeddings of 2,048 words in 12 KB",
        lambda: post(EMBEDDINGS, {"model": "text-embedding-3-large", "input": ["a"] * 2048}),
        answered,
    ),
    "legacy-ids-48mb": Attack(
        "legacy `prompt` of 24,000,000 token ids",
        lambda: post(LEGACY, f'{{"model":"gpt-4","prompt":{listed("1", 48 * MB)}}}'),
    ),
    "tokenize-10mb": Attack(
        "`/tokenize` of 10 MB", lambda: post(TOKENIZE, {"prompt": "hello " * 1_660_000}), answered
    ),
    "tokenize-messages": Attack(
        "`/tokenize` of `[{}, {}, ...]`, 3 MB", lambda: post(TOKENIZE, messages("{}", 3 * MB))
    ),
    "detokenize-10mb": Attack(
        "`/detokenize` of 5,000,000 ids",
        lambda: post(DETOKENIZE, f'{{"tokens":{listed("1", 10 * MB)}}}'),
        answered,
    ),
    # Connections
    "header-50mb": Attack("one header of 50 MB", long_header),
    "header-many": Attack("100,000 headers", many_headers),
    "headers-endless": Attack("headers that never end", endless_headers),
    "head-silent": Attack("half a head, and silence", silent_head),
    "url-10mb": Attack("a path of 10 MB", lambda: post("/v1/" + "x" * 10 * MB, chat())),
    "pipelined": Attack("200,000 pipelined GETs", lambda: pipelined(200_000), ignored, lasts_s=4),
    "slow-body": Attack("50 bodies of a byte a second", slow_body, ignored, lasts_s=4),
    "body-missing": Attack(
        "100 bodies of 49 MB that do not come", missing_body, ignored, lasts_s=4
    ),
    "body-too-large": Attack(
        "a body of 500 MB, declared", lambda: [Call([head(CHAT, 500 * MB), b"x" * MB])]
    ),
    "chunks": Attack("2 MB in chunks of a byte", small_chunks, answered),
    "idle": Attack("1,000 idle connections", lambda: [Call([])] * 1000, ignored, lasts_s=4),
    "leaving": Attack("10 clients go away in mid-parse", leaving, ignored, lasts_s=1),
    "unread": Attack("10 streams that nobody reads", unread_stream, ignored, lasts_s=4),
    "gzip-bombs": Attack(
        "20 gzip bodies of 200 MB each once decoded", lambda: bomb("gzip", 200 * MB)
    ),
    "gzip-49mb": Attack(
        "20 gzip bodies of 49 MB of spaces each", lambda: bomb("gzip", 49 * MB), answered
    ),
    "zstd-bombs": Attack(
        "20 zstd bodies of 200 MB each once decoded", lambda: bomb("zstd", 200 * MB)
    ),
    "frames-large": Attack(
        "10 websockets with 20 frames of 1.9 MB, and no answer read",
        lambda: frames(b" " * 1_900_000, 20) * 10,
        ignored,
        lasts_s=4,
    ),
    "frames-small": Attack(
        "a websocket with 100,000 frames, and no answer read",
        lambda: frames(b"{}", 100_000),
        ignored,
        lasts_s=4,
    ),
    "crowd": Attack(
        "1,000 prompts of 70 KB at once",
        lambda: post(CHAT, chat("hello " * 11_700)) * 1000,
        answered,
    ),
    # Valid, and large
    "picture-20mb": Attack(
        "a picture of 20 MB", lambda: post(CHAT, parts(picture(png(15 * MB)), 1)), served
    ),
    "prompt-1mb": Attack("a prompt of 1 MB", lambda: post(CHAT, chat("hello " * 166_000)), served),
    "prompt-10mb": Attack(
        "a prompt of 10 MB", lambda: post(CHAT, chat("hello " * 1_660_000)), served
    ),
}
"""Each attack by its name; the valid requests come last."""
