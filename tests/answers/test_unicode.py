"""The texts in many scripts: exact in tokens, whole in characters, stopped where they must be."""

import json
import random
import unicodedata

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.answers.corpora import Corpora, Texts
from emulator.answers.stops import hold_back
from tests.support.wire import token_count
from tokenizer import MODEL_OF_ENCODING, load_encodings, split_tokens

load_encodings()
CORPORA = Corpora()
MODELS = sorted(MODEL_OF_ENCODING.items())


def texts(model: str) -> Texts:
    """Return the texts in many scripts, in a model's tokens."""
    return CORPORA.of("unicode", model)


@pytest.mark.parametrize(("encoding", "model"), MODELS)
def test_every_length_is_exact(encoding: str, model: str) -> None:
    """A new text of each length has that many tokens, and re-encodes to as many."""
    corpus, rng = texts(model), random.Random(3)
    made = {n: corpus.write(n, rng) for n in range(1, 1201)}
    wrong = [n for n, text in made.items() if token_count("".join(text), encoding) != n]
    assert wrong == []
    assert all(len(text) == n for n, text in made.items())


@pytest.mark.parametrize(("encoding", "model"), MODELS)
@given(n=st.integers(1, 90), seed=st.integers(0, 10_000))
@settings(max_examples=300)
def test_short_texts_are_exact(encoding: str, model: str, n: int, seed: int) -> None:
    """Whatever sentences a short text is made of, it is as long as asked by tiktoken."""
    text = "".join(texts(model).write(n, random.Random(seed)))
    assert token_count(text, encoding) == n


@pytest.mark.parametrize(("encoding", "model"), MODELS)
@pytest.mark.parametrize("n", [20_000, 131_072])
def test_long_texts_are_exact(encoding: str, model: str, n: int) -> None:
    """Texts up to the limit, which repeat, are as long as asked."""
    text = "".join(texts(model).write(n, random.Random(1)))
    assert int(tiktoken.get_encoding(encoding).encode_to_numpy(text).size) == n


@pytest.mark.parametrize(("encoding", "model"), MODELS)
def test_tokens_are_those_of_the_text(encoding: str, model: str) -> None:
    """Each token of a text is the characters that are complete with tiktoken's."""
    for seed in range(40):
        tokens = texts(model).write(150, random.Random(seed))
        assert tokens == split_tokens("".join(tokens), model), encoding


@pytest.mark.parametrize("model", MODEL_OF_ENCODING.values())
def test_tokens_need_no_escapes(model: str) -> None:
    """As UTF-8, every token is in JSON what it is in Python, so that it is sent as it stands."""
    tokens = set(texts(model).write(20_000, random.Random(1)))
    assert [t for t in tokens if json.dumps(t, ensure_ascii=False) != f'"{t}"'] == []


@pytest.mark.parametrize("model", MODEL_OF_ENCODING.values())
def test_texts_hold_many_scripts(model: str) -> None:
    """There are accents, CJK, right-to-left and combining characters, and emoji beyond 16 bits."""
    text = "".join(texts(model).write(20_000, random.Random(1)))
    names = {unicodedata.name(character, "").split()[0] for character in set(text)}
    assert names >= {"LATIN", "CYRILLIC", "GREEK", "CJK", "HIRAGANA", "HANGUL", "ARABIC"}
    assert names >= {"HEBREW", "DEVANAGARI", "THAI", "COMBINING", "ZERO", "REGIONAL", "EMOJI"}
    assert max(text) > "\U00010000"
    assert "\N{REPLACEMENT CHARACTER}" not in text


def test_some_tokens_are_parts_of_characters() -> None:
    """In each encoding some tokens complete no character: that is what the texts are for."""
    for model in MODEL_OF_ENCODING.values():
        assert "" in texts(model).write(400, random.Random(1))


def test_texts_of_a_seed_are_the_same() -> None:
    """The same state gives the same text, and a thousand states many different ones."""
    corpus = texts("gpt-4o")
    assert corpus.write(50, random.Random(7)) == corpus.write(50, random.Random(7))
    assert len({"".join(corpus.write(60, random.Random(seed))) for seed in range(1000)}) > 900


@pytest.mark.parametrize(("encoding", "model"), MODELS)
@given(data=st.data(), seed=st.integers(0, 500))
@settings(max_examples=150)
def test_stopped_text_is_exact(encoding: str, model: str, data: st.DataObject, seed: int) -> None:
    """A text that a stop ends, in a word or between, has the tokens that tiktoken counts."""
    tokens = texts(model).write(60, random.Random(seed))
    text = "".join(tokens)
    start = data.draw(st.integers(1, len(text) - 1))
    stop = text[start : start + data.draw(st.integers(1, 6))]
    held = hold_back(tokens, [stop], lambda rest: split_tokens(rest, model))
    assert "".join(held.tokens) == text.partition(stop)[0]
    assert len(held.tokens) == min(token_count(text.partition(stop)[0], encoding), held.slots)
    assert all(slot >= place for place, slot in enumerate(held.token_slots))
