"""Valid requests to every endpoint, and a seeded mutator that makes them wrong in some way."""

import copy
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tests.support.wire import CHAT_PATH, chat, headers

PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAC"
    "hwGA60e6kgAAAABJRU5ErkJggg=="
)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "a": {"type": "string", "pattern": "^[a-z]{2,3}$"},
        "b": {"type": "array", "items": {"type": "number", "multipleOf": 0.5}, "minItems": 2},
        "c": {"anyOf": [{"enum": [1, "x", None]}, {"$ref": "#/$defs/d"}]},
        "e": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 9}]},
    },
    "required": ["a", "b", "c"],
    "$defs": {"d": {"type": "string", "format": "date-time", "minLength": 2}},
}
FUNCTION = {"name": "look", "description": "Looks.", "parameters": SCHEMA, "strict": False}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
FORMAT = {"name": "x", "schema": SCHEMA}


@dataclass(frozen=True)
class Request:
    """One request: its method, its path, its header lines and its body."""

    method: str
    path: str
    fields: Mapping[str, str | bytes]
    body: bytes = b""

    def encode(self) -> bytes:
        """Return the bytes that are sent; names that differ in a space at their end are one."""
        lines = [f"{self.method} {self.path} HTTP/1.1".encode("latin-1"), b"Host: emulator"]
        lines += [
            name.strip().encode() + b": " + (value if isinstance(value, bytes) else value.encode())
            for name, value in self.fields.items()
        ]
        if self.body or self.method != "GET":
            lines.append(b"Content-Length: %d" % len(self.body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body


BODIES: list[tuple[str, dict[str, Any]]] = [
    (CHAT_PATH, chat()),
    (CHAT_PATH, chat(stream=True, stream_options={"include_usage": True}, n=2, seed=7)),
    (
        CHAT_PATH,
        chat(
            temperature=0.5,
            top_p=1,
            frequency_penalty=0.1,
            max_completion_tokens=9,
            stop=["river", "\n"],
            logit_bias={"50256": -100},
            logprobs=True,
            top_logprobs=3,
            user="u",
            metadata={"a": "b"},
            service_tier="auto",
            emulation={"output_length": 3, "sse_batch_size": 2, "ttft_ms": 0},
        ),
    ),
    (
        CHAT_PATH,
        {
            "model": "gpt-4o",
            "stream": True,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {
                    "role": "user",
                    "name": "ann",
                    "content": [
                        {"type": "text", "text": "What is this?"},
                        {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
                        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                        {"type": "file", "file": {"file_id": "f", "filename": "a.pdf"}},
                    ],
                },
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
            ],
            "tools": [{"type": "function", "function": FUNCTION}],
            "tool_choice": {"type": "function", "function": {"name": "look"}},
            "parallel_tool_calls": True,
        },
    ),
    (CHAT_PATH, chat(response_format={"type": "json_schema", "json_schema": FORMAT})),
    (CHAT_PATH, chat("As json", response_format={"type": "json_object"}, stream=True)),
    (CHAT_PATH, chat(functions=[FUNCTION], function_call="auto", reasoning_effort="low")),
    ("/v1/completions", {"model": "gpt-4", "prompt": "Hello", "max_tokens": 4, "echo": True}),
    (
        "/v1/completions",
        {
            "model": "gpt-3.5-turbo-instruct",
            "prompt": ["a", "b"],
            "stream": True,
            "n": 2,
            "best_of": 2,
            "logprobs": 2,
            "suffix": None,
            "stop": "river",
        },
    ),
    ("/v1/completions", {"model": "gpt-4", "prompt": [[1, 2, 3], [4]], "stream": False}),
    ("/v1/responses", {"model": "gpt-4o", "input": "Hello!", "instructions": "Be brief."}),
    (
        "/v1/responses",
        {
            "model": "gpt-5",
            "stream": True,
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
                {"role": "user", "content": [{"type": "input_image", "image_url": PNG}]},
                {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "rain"},
            ],
            "tools": [{"type": "function", "name": "look", "parameters": SCHEMA, "strict": False}],
            "tool_choice": "auto",
            "reasoning": {"effort": "low", "summary": "auto"},
            "include": ["message.output_text.logprobs"],
            "top_logprobs": 2,
            "max_output_tokens": 16,
            "metadata": {},
        },
    ),
    (
        "/v1/responses",
        {
            "model": "gpt-4o",
            "input": "json",
            "text": {"format": {"type": "json_schema", **FORMAT}, "verbosity": "low"},
        },
    ),
    ("/v1/responses/input_tokens", {"model": "gpt-4o", "input": "Hello!"}),
    ("/v1/embeddings", {"model": "text-embedding-3-small", "input": ["a", "b"], "dimensions": 8}),
    ("/v1/embeddings", {"model": "e", "input": [[1, 2], [3]], "encoding_format": "base64"}),
    ("/tokenize", {"prompt": "Hello there", "return_token_strs": True}),
    ("/tokenize", {"model": "gpt-4", "messages": [{"role": "user", "content": "hi"}]}),
    ("/detokenize", {"model": "gpt-4", "tokens": [1, 2, 3]}),
]
GETS = [
    *(CHAT_PATH, "/v1/models", "/v1/models/gpt-4", "/v1/models/a/b", "/v1/responses/resp_1"),
    *("/v1/responses/resp_1/input_items", "/health", "/version", "/ping", "/docs"),
    *("/openapi.json", "/livez", "/readyz", "/"),
]
INSTANT = {**headers(output_length=2), "Content-Type": "application/json"}
VALID = [
    *(Request("POST", path, INSTANT, json.dumps(body).encode()) for path, body in BODIES),
    *(Request("GET", path, {}) for path in GETS),
]

# --------------------------------------------------------------------------------------
# Values
# --------------------------------------------------------------------------------------

ODD_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 129, 2**31, 2**63, -(2**63) - 1, 2**64, 10**40),
    *(0.5, -0.0, 1e-320, 1e308, -1e308, 1e999, -1e999, float("nan"), 10**310, 1e22),
    *("", " ", "\0", "a" * 300, "☃" * 40, "\ud800", "\U0001f600", "null", "0", "1e5", "-1"),
    *("a\r\nX-Y: z", "<|endoftext|>", "../../etc/passwd", "{}", "${x}", "%s%n", "\x1b[31m", "\x7f"),
    *("data:image/png;base64,", "data:image/png;base64,AAAA", "data:;,", "file:///etc/passwd"),
    *("(", "[", "(a+)+$", "\\", "^(?=a)b$", "\\p{L}{1000}", "auto", "required", "user", "tool"),
    *([], {}, [[]], [{}], [None], {"": None}, {"type": "object"}, {"$ref": "#"}, {"a": {"a": {}}}),
    *([""] * 3, [1] * 300, {str(n): n for n in range(40)}, {"$ref": "#/x"}, [0.1], ["a", 1]),
    *({"multipleOf": 1e-300}, {"minItems": 10**9}, {"minLength": 10**9}, {"maximum": -1e308}),
    *({"enum": []}, {"const": "\0"}, {"not": {}}, {"allOf": [{"multipleOf": 10**300}] * 3}),
]
ODD_KEYS = ["", "\0", "model", "type", "$ref", "a" * 300, "__proto__", "\ud800", "n", "stream", "x"]
KEYS_OF_SCHEMAS = [
    *("const", "enum", "anyOf", "oneOf", "allOf", "not", "if", "items", "prefixItems", "contains"),
    *(
        "minItems",
        "maxItems",
        "minLength",
        "pattern",
        "format",
        "multipleOf",
        "minimum",
        "required",
    ),
    *("maximum", "exclusiveMinimum", "properties", "patternProperties", "additionalProperties"),
    *(
        "minProperties",
        "uniqueItems",
        "dependentRequired",
        "$defs",
        "$ref",
        "type",
        "propertyNames",
    ),
]
ODD_FIELDS: list[str | bytes] = [
    *(
        "",
        "-1",
        "0",
        "1",
        "0.5",
        "nan",
        "inf",
        "-inf",
        "0x10",
        "1_0",
        "1e-3",
        "99999999999",
        "true",
    ),
    *("maybe", "normal:0_0.1", "normal:0.1", "uniform:5", "trace:../x", "1,2", "1;2", "+1", "1 1"),
    *("٣".encode(), b"\xff\xfe", b"\x80", "x" * 500, b"\t1\t", "null", "%00"),
]
FIELD_NAMES = [
    *("X-TTFT-MS", "X-ITL-MS", "X-OUTPUT-LENGTH", "X-SSE-BATCH-SIZE", "X-REASONING-LENGTH"),
    *("X-TOOL-CALLS", "X-CACHED-TOKENS", "X-TTFT-JITTER", "X-ITL-JITTER", "X-EMULATION-REPORT"),
]
OTHER_FIELDS: list[tuple[str, str | bytes]] = [
    *(("Content-Type", value) for value in ("text/plain", "", "multipart/form-data", b"\xff")),
    *(("Authorization", value) for value in ("Bearer", "Bearer a b", b"Basic \xff\xff==", "")),
    *(("X-FAULT-KIND", value) for value in ("", "nothing", b"\xff")),
    *(("X-FAULT-STATUS", "x"), ("X-FAULT-AFTER-TOKENS", "-1"), ("X-FAULT-PROBABILITY", "2")),
    *(("Content-Encoding", "gzip"), ("Accept", "text/html"), ("Accept-Encoding", "gzip;q=x")),
    *(("Expect", "100-continue"), ("Expect", "x"), ("Range", "bytes=0-"), ("Cookie", "=;=" * 20)),
    *(("Origin", "null"), ("X-Request-Id", b"a\xff"), ("traceparent", "00-zz-yy-01")),
    *(("Upgrade", "h2c"), ("Forwarded", "for=x"), ("X-Forwarded-For", "\t,,"), ("Host ", "b")),
]
ODD_PATHS = [
    *("/v1", "/v1/", "//", "/v1//chat/completions", "/v1/chat/completions/", "/chat/completions"),
    *("/v1/models/", "/v1/models/%00", "/v1/models/%ff", "/v1/models/..%2f..", "/v2/x", "/%"),
    *("/v1/responses/a/cancel", "/docs/..", "/docs/x.css", "/v1/chat/completions?a=b&%ff=", "/x?"),
    *("/static_content/index.html", "/metrics/", "/healthz", "*", "/v1/models/" + "m" * 900),
    *(
        "/v1/fine_tuning/jobs",
        "/v1/models/\xe4",
        "/schema.json",
        "/docs.json",
        "/v1/models/a%0d%0ab",
    ),
]
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "PROPFIND", "TRACE"]


# --------------------------------------------------------------------------------------
# Mutations
# --------------------------------------------------------------------------------------


def places(value: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401 - JSON
    """Yield each container of a JSON value with each key or index that it has."""
    keys = value if isinstance(value, dict) else range(len(value))
    for key in list(keys):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from places(value[key])


def odd_value(body: Any, draw: random.Random) -> None:  # noqa: ANN401
    """Put an odd value in some place."""
    container, key = draw.choice([*places(body)])
    container[key] = copy.deepcopy(draw.choice(ODD_VALUES))


def removed(body: Any, draw: random.Random) -> None:  # noqa: ANN401
    """Take something out."""
    container, key = draw.choice([*places(body)])
    del container[key]


def renamed(body: Any, draw: random.Random) -> None:  # noqa: ANN401
    """Give a key another name, or put something in a list twice."""
    container, key = draw.choice([*places(body)])
    if isinstance(container, dict):
        container[draw.choice([*ODD_KEYS, *KEYS_OF_SCHEMAS])] = container.pop(key)
    else:
        container.insert(key, copy.deepcopy(container[key]))


def added(body: Any, draw: random.Random) -> None:  # noqa: ANN401
    """Add a key that does not belong there, or that says something about a schema."""
    objects = [body, *(v for c, k in places(body) if isinstance(v := c[k], dict))]
    target = draw.choice([value for value in objects if isinstance(value, dict)] or [{}])
    key = draw.choice(ODD_KEYS if draw.random() < 0.3 else KEYS_OF_SCHEMAS)
    target[key] = copy.deepcopy(draw.choice(ODD_VALUES))


def deepened(body: Any, draw: random.Random) -> None:  # noqa: ANN401
    """Put something into many lists or objects."""
    container, key = draw.choice([*places(body)])
    for _ in range(draw.choice((1, 2, 30, 150, 220))):
        container[key] = [container[key]] if draw.random() < 0.5 else {"items": container[key]}


def moved(body: Any, draw: random.Random) -> None:  # noqa: ANN401
    """Write over something with a copy of something else."""
    all_places = [*places(body)]
    (container, key), (other, its) = draw.choice(all_places), draw.choice(all_places)
    container[key] = copy.deepcopy(other[its])


TREES: list[Callable[[Any, random.Random], None]] = [
    *(odd_value, odd_value, odd_value, removed, renamed, added, added, deepened, moved)
]


def wrong_json(request: Request, draw: random.Random) -> Request:
    """Change one to three things in the JSON of a body."""
    try:
        body = json.loads(request.body)
    except ValueError:
        return request
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        if isinstance(body, dict | list) and body:
            draw.choice(TREES)(body, draw)
    if draw.random() < 0.02:
        body = draw.choice(ODD_VALUES)
    return replace(request, body=json.dumps(body).encode())


def wrong_bytes(request: Request, draw: random.Random) -> Request:
    """Flip, cut, insert or double bytes of a body, or write it in another encoding."""
    body = bytearray(request.body or b"{}")
    at = draw.randrange(len(body))
    match draw.randrange(6):
        case 0:
            for _ in range(draw.choice((1, 3, 20))):
                body[draw.randrange(len(body))] ^= 1 << draw.randrange(8)
        case 1:
            del body[at:]
        case 2:
            body[at:at] = draw.choice((b"\0", b"\xff", b'"', b"\\", b"}", b",", b"\xed\xa0\x80"))
        case 3:
            body[at:at] = body[: draw.randrange(len(body))]
        case 4:
            encoding = draw.choice(("utf-16", "utf-32", "utf-8-sig"))
            body = bytearray(bytes(body).decode(errors="replace").encode(encoding))
        case _:
            body += draw.choice((b"{}", b" ", b"\0", b"\n\n", b"//"))
    return replace(request, body=bytes(body))


def wrong_fields(request: Request, draw: random.Random) -> Request:
    """Give an odd value to a header of ours, or add one of others, or send one twice."""
    fields = dict(request.fields)
    match draw.randrange(4):
        case 0 | 1:
            fields[draw.choice(FIELD_NAMES)] = draw.choice(ODD_FIELDS)
        case 2:
            name, value = draw.choice(OTHER_FIELDS)
            fields[name] = value
        case _:
            fields[draw.choice(FIELD_NAMES) + " "] = draw.choice(("0", "1", "x"))
    return replace(request, fields=fields)


def wrong_target(request: Request, draw: random.Random) -> Request:
    """Ask with another method, or for another path."""
    if draw.random() < 0.5:
        return replace(request, method=draw.choice(METHODS))
    return replace(request, path=draw.choice([*ODD_PATHS, *GETS]))


MUTATIONS: list[Callable[[Request, random.Random], Request]] = [
    *[wrong_json] * 12,
    *[wrong_bytes] * 3,
    *[wrong_fields] * 3,
    wrong_target,
]


def mutated(number: int) -> Request:
    """Return the mutated request of this number: the same whenever it is asked for."""
    draw = random.Random(number)
    request = draw.choice(VALID if draw.random() < 0.1 else VALID[: len(BODIES)])
    for _ in range(draw.choice((1, 1, 1, 2))):
        request = draw.choice(MUTATIONS)(request, draw)
    return request
