"""POST /v1/embeddings, its vectors, and what they cost."""

import base64
import itertools
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from emulator.answers.corpus import Corpus
from emulator.embeddings.embedder import Embedder
from emulator.embeddings.words import MAX_WORDS, WordTable
from tests.support.reference import cpu_s, here_s, least, watched_machine
from tests.support.sdk import message_of, refused
from tests.support.server import REPOSITORY, TLS, Server, eventually
from tests.support.wire import headers, token_count
from tokenizer import count_tokens

MODEL = "text-embedding-3-small"
PATH = "/v1/embeddings"
CATS, CAT, STOCKS = "The cats sat on the mat.", "On a mat sat two cats", "Stocks fell sharply today"

Vectors = NDArray[np.float64]


def embed(client: openai.OpenAI, inputs: Any, **parameters: Any) -> Vectors:  # noqa: ANN401 - JSON
    """Return the vectors of inputs, a row each."""
    parameters = {"model": MODEL, "extra_headers": headers(), **parameters}
    answer = client.embeddings.create(input=inputs, **parameters)
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return np.array([item.embedding for item in answer.data])


# --------------------------------------------------------------------------------------
# Vectors
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
def test_vectors_have_length_1(client: openai.OpenAI, encoding: str | None) -> None:
    """In every format a vector has length 1, and the formats say the same."""
    given = {} if encoding is None else {"encoding_format": encoding}
    answer = client.embeddings.create(
        model=MODEL,
        input=CATS,
        extra_headers=headers(),
        **given,  # type: ignore[arg-type]
    )
    data: Any = answer.data[0].embedding
    vector = np.frombuffer(base64.b64decode(data), "<f4") if isinstance(data, str) else data
    assert len(vector) == 1536
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert vector == pytest.approx(embed(client, CATS)[0], abs=1e-7)


def test_format_on_the_wire(http: httpx.Client) -> None:
    """Without a format numbers come, with base64 a text, and the answer has OpenAI's shape."""
    for asked, kind in (({}, list), ({"encoding_format": "base64"}, str)):
        body = {"model": MODEL, "input": "hi", **asked}
        answer = http.post(PATH, json=body, headers=headers()).json()
        assert isinstance(answer["data"][0].pop("embedding"), kind)
        assert answer == {
            "object": "list",
            "data": [{"object": "embedding", "index": 0}],
            "model": MODEL,
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        }


def test_shared_words_are_near(client: openai.OpenAI) -> None:
    """Texts that share words are nearer to each other than texts that do not."""
    cats, cat, stocks = embed(client, [CATS, CAT, STOCKS])
    assert cats @ cat > 0.5
    assert abs(cats @ stocks) < 0.2


def test_retrieval(client: openai.OpenAI) -> None:
    """A question finds the text that answers it, in English as in Chinese."""
    texts = [
        "Photosynthesis turns light into sugar.",
        "The parliament voted on the budget on Monday.",
        "Quantum computers use qubits.",
        "猫喜欢睡在窗台上。",
        "股票今天大幅下跌。",
    ]
    questions = {
        "how does photosynthesis work?": 0,
        "what is a qubit? qubits!": 2,
        "猫在哪里睡觉": 3,
    }
    near = embed(client, [*questions]) @ embed(client, texts).T
    assert near.argmax(axis=1).tolist() == list(questions.values())


def test_token_ids_are_their_text(client: openai.OpenAI) -> None:
    """Token ids have the vector of the text that they stand for."""
    ids = tiktoken.get_encoding("cl100k_base").encode(CATS)
    assert (embed(client, ids) == embed(client, CATS)).all()
    assert (embed(client, [ids, ids[:2]])[0] == embed(client, CATS)[0]).all()


def test_models_differ(client: openai.OpenAI) -> None:
    """The vector depends on the model, and on nothing else but the text."""
    assert (embed(client, CATS) == embed(client, [CATS, STOCKS])[0]).all()
    assert (
        abs(embed(client, CATS, model="text-embedding-ada-002")[0] @ embed(client, CATS)[0]) < 0.3
    )


@pytest.mark.parametrize("text", ["!", " ", "\n\t", "\0", "the", "\ud83d\ude00", "_"])
def test_every_text_has_a_vector(client: openai.OpenAI, text: str) -> None:
    """A text without a word has a vector of length 1 too."""
    vector = embed(client, text.encode("utf-16", "surrogatepass").decode("utf-16"))[0]
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_the_same_on_every_start(client: openai.OpenAI) -> None:
    """Another process, whose hashes of texts differ, makes the same vectors."""
    code = (
        "from emulator.embeddings.embedder import Embedder; "
        f"[(piece, _)] = Embedder().embed([{CATS!r}], {MODEL!r}, 1536, as_base64=True); "
        "print(piece.decode())"
    )
    made = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    vector = np.frombuffer(base64.b64decode(made.split('"')[-2]), "<f4")
    assert vector == pytest.approx(embed(client, CATS)[0], abs=1e-7)


# --------------------------------------------------------------------------------------
# Words and tokens
# --------------------------------------------------------------------------------------

PIECES = st.text(alphabet=st.sampled_from("ab Zé  1\n.'-猫\u00a0\x1c_\U0001f600"), max_size=30)


@given(st.lists(PIECES.filter(bool), min_size=1, max_size=5))
def test_tokens_are_counted_as_tiktoken_does(texts: list[str]) -> None:
    """Counting by the words between spaces gives what tiktoken gives for the whole text."""
    for model in ("text-embedding-3-small", "gpt-4o", "text-davinci-003"):
        table = WordTable(lambda text, model=model: count_tokens(text, model))  # type: ignore[misc]
        expected = [count_tokens(text, model) for text in texts]
        assert table.look_up(texts).tokens.tolist() == expected
        assert table.look_up(texts).tokens.tolist() == expected


def test_table_of_words_is_bounded() -> None:
    """A table that has grown over its bound begins anew, and counts as before."""
    table = WordTable(len)
    for start in range(0, 3 * MAX_WORDS, 4096):
        text = " ".join(map(str, range(start, start + 4096)))
        assert table.look_up([text]).counts.tolist() == [4096]
        assert len(table._pieces) <= MAX_WORDS + 4096


@pytest.mark.parametrize(
    "inputs", ["hello world", ["a", "Hello, world!\n"], [1, 2, 3], [[1, 2], [3]]], ids=str
)
def test_usage_is_exact(client: openai.OpenAI, inputs: Any) -> None:  # noqa: ANN401 - JSON
    """The usage counts what tiktoken counts, and of token ids each."""
    usage = client.embeddings.create(model=MODEL, input=inputs, extra_headers=headers()).usage
    several = inputs if isinstance(inputs, list) else [inputs]
    tokens = sum(
        token_count(item, "cl100k_base") if isinstance(item, str) else np.size(item)
        for item in several
    )
    assert (usage.prompt_tokens, usage.total_tokens) == (tokens, tokens)


# --------------------------------------------------------------------------------------
# Dimensions and bounds
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "asked", "length"),
    [
        (MODEL, None, 1536),
        (MODEL, 5, 5),
        ("text-embedding-3-large", None, 3072),
        ("text-embedding-3-large", 3072, 3072),
        ("text-embedding-ada-002", None, 1536),
        ("my-model", 256, 256),
    ],
)
def test_dimensions(client: openai.OpenAI, model: str, asked: int | None, length: int) -> None:
    """A vector is as long as asked, or as its model's are, and of length 1 in base64 and not."""
    given = {} if asked is None else {"dimensions": asked}
    for encoding in ("float", "base64"):
        answer = client.post(
            "/embeddings",
            body={"model": model, "input": CATS, "encoding_format": encoding, **given},
            cast_to=object,
        )
        data: Any = answer
        vector = data["data"][0]["embedding"]
        if isinstance(vector, str):
            vector = np.frombuffer(base64.b64decode(vector), "<f4")
        assert len(vector) == length
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


LONG = " a" * 8193

BAD: list[tuple[dict[str, Any], str, str | None]] = [
    ({"input": ""}, "input", "empty_string"),
    ({"input": ["a", ""]}, "input[1]", "empty_string"),
    ({"input": []}, "input", "empty_array"),
    ({"input": [[]]}, "input", "invalid_type"),
    ({"input": None}, "input", "invalid_type"),
    ({"input": ["a", 1]}, "input", "invalid_type"),
    ({"input": [-1]}, "input", "invalid_type"),
    ({"input": ["a"] * 2049}, "input", "array_above_max_length"),
    ({"input": LONG}, "input", None),
    ({"input": ["a", LONG]}, "input[1]", None),
    ({"input": [1] * 8193}, "input", None),
    ({"input": [[1] * 8193]}, "input[0]", None),
    ({"input": ["\U0001f469\u200d\U0001f9b0" * 2000]}, "input[0]", None),
    ({"input": [" a" * 8000] * 38}, "input", "max_tokens_per_request"),
    ({"input": [2_000_000_000]}, "input", "invalid_value"),
    ({"dimensions": 0}, "dimensions", "integer_below_min_value"),
    ({"dimensions": 1537}, "dimensions", "integer_above_max_value"),
    ({"dimensions": 3073, "model": "text-embedding-3-large"}, "dimensions",
     "integer_above_max_value"),
    ({"dimensions": 8, "model": "text-embedding-ada-002"}, "dimensions", None),
    ({"encoding_format": "int8"}, "encoding_format", "invalid_value"),
]  # fmt: skip


@pytest.mark.parametrize(("parameters", "param", "code"), BAD, ids=lambda value: str(value)[:40])
def test_refusals(
    client: openai.OpenAI, parameters: dict[str, Any], param: str, code: str | None
) -> None:
    """A fault is a 400 that names the field, and the input among several."""
    error = refused(client, {"model": MODEL, "input": "hi", **parameters}, "/embeddings")
    assert (error.status_code, error.param, error.code) == (400, param, code)


def test_too_long_in_openais_words(client: openai.OpenAI) -> None:
    """An input that is too long is refused in OpenAI's words, with its tokens."""
    error = refused(client, {"model": MODEL, "input": LONG}, "/embeddings")
    assert "maximum context length is 8192 tokens, however you requested 8193" in message_of(error)


def test_most_inputs(client: openai.OpenAI) -> None:
    """2,048 inputs are answered, and one of 8,192 tokens is."""
    assert embed(client, ["a"] * 2048, dimensions=3).shape == (2048, 3)
    assert embed(client, LONG[2:]).shape == (1, 1536)


# --------------------------------------------------------------------------------------
# Time
# --------------------------------------------------------------------------------------


def test_answers_after_the_asked_time(http: httpx.Client) -> None:
    """The answer leaves after X-TTFT-MS, as its report says."""
    body = {"model": MODEL, "input": "hi"}
    extra = {"X-TTFT-MS": "150", "X-EMULATION-REPORT": "true"}
    started_s = time.monotonic()
    answer = http.post(PATH, json=body, headers=extra).json()
    assert time.monotonic() - started_s >= 0.15
    assert answer["emulation"]["total_ms"]["asked"] == 150
    assert answer["emulation"]["total_ms"]["actual"] >= 150


def test_jitter(http: httpx.Client) -> None:
    """X-TTFT-JITTER holds for embeddings too, and a bad one is a 400."""
    body = {"model": MODEL, "input": "hi"}
    good = {"X-TTFT-MS": "10", "X-TTFT-JITTER": "uniform:0.5", "X-EMULATION-REPORT": "true"}
    asked = http.post(PATH, json=body, headers=good).json()["emulation"]["total_ms"]["asked"]
    assert 5 <= asked <= 15
    assert http.post(PATH, json=body, headers={"X-TTFT-JITTER": "x"}).status_code == 400


def test_log_line(logged_server: Server, client: openai.OpenAI) -> None:
    """The log tells of each request, and nothing of what it holds."""
    embed(client, ["secret words"] * 3, dimensions=77)
    line = f'embeddings model="{MODEL}" status=200 inputs=3 prompt_tokens=6 dimensions=77 '
    assert eventually(lambda: line in logged_server.log())
    assert "secret words" not in logged_server.log()


def texts_of_100_tokens(count: int) -> Sequence[str]:
    """Return texts of 100 tokens each."""
    corpus = Corpus()
    rng = random.Random(1)
    return ["".join(corpus.write(100, rng)) for _ in range(count)]


def test_last_of_many_inputs_is_too_long(client: openai.OpenAI) -> None:
    """A fault that a helper finds when it has made most of the vectors is told like any other."""
    with pytest.raises(openai.BadRequestError, match="requested 9000 tokens"):
        client.embeddings.create(model=MODEL, input=["a"] * 2000 + ["word" + " word" * 8999])
    made = client.embeddings.create(model=MODEL, input=["a"] * 2000 + ["b"])
    assert [item.index for item in made.data] == list(range(2001))
    assert made.usage.prompt_tokens == 2001


def test_cost_of_many_inputs() -> None:
    """2,048 inputs of 100 tokens take a fast machine about 70 ms of CPU."""
    embedder, texts = Embedder(), texts_of_100_tokens(2048)
    most_s = here_s(0.2)

    def embed_all() -> int:
        """Return the tokens of all texts, when all are embedded."""
        return sum(tokens for _, tokens in embedder.embed(texts, MODEL, 1536, as_base64=True))

    assert embed_all() == 204_800
    assert least(lambda: cpu_s(embed_all), below=most_s) < most_s


def test_streams_go_on_beside_many_inputs(one_worker: Server) -> None:
    """While thousands of inputs are embedded, a stream of the same worker waits little."""
    body = {"model": MODEL, "input": texts_of_100_tokens(2048), "encoding_format": "base64"}
    extra = {**headers(0, 5, 100), "X-EMULATION-REPORT": "true"}
    chat = {"model": "gpt-4", "messages": [{"role": "user", "content": "hi"}], "stream": True}

    def lag_ms() -> float:
        """Return the worst lag of the stream, but for what the machine itself did."""
        with (
            watched_machine() as machine,
            httpx.Client(base_url=one_worker.url, timeout=60, trust_env=False, verify=TLS) as http,
            http.stream("POST", "/v1/chat/completions", json=chat, headers=extra) as stream,
        ):
            lines = stream.iter_lines()
            next(lines)
            assert http.post(PATH, json=body, headers=headers()).status_code == 200
            data = [line for line in lines if '"emulation"' in line]
        report = json.loads(data[-1].removeprefix("data: "))["emulation"]
        return float(report["worst_lag_ms"]) - machine.worst_s * 1000

    assert least(lag_ms, below=150) < 150


def test_order_is_kept(client: openai.OpenAI) -> None:
    """Each input has its own vector, in the order of the inputs, over many batches."""
    texts = [" ".join(pair) for pair in itertools.permutations("abcdefghijkl", 2)]
    vectors = embed(client, texts, dimensions=64)
    again = embed(client, texts[::-1], dimensions=64)
    assert (vectors == again[::-1]).all()
