"""Texts in any script as tokens: characters are whole, and the count is tiktoken's."""

import pytest
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support.wire import ENCODINGS
from tokenizer import complete_characters, count_tokens, split_tokens, token_bytes, token_ids

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Names of models, one for each encoding.
MODELS = {encoding: model for model, encoding in ENCODINGS.items()}
models = st.sampled_from(sorted(MODELS.values()))
# Any character but lone surrogates, and often those whose bytes span tokens.
texts = st.text(max_size=300) | st.text(
    st.characters(min_codepoint=0x80, exclude_categories=["Cs"]), max_size=300
)
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


@settings(max_examples=500)
@given(texts, models)
@example(FAMILY * 40, "gpt-4")
@example("𒀀𒀁 \u0301e\u0301\r\n\t ", "text-davinci-003")
@example("\x00\x7f\x85\u2028\u2029\ufeff\ufffe\U0010ffff", "gpt-4o")
@example(" " * 300, "gpt-4")
def test_any_text_comes_back_whole(text: str, model: str) -> None:
    """Joined, the tokens are the text, and they are as many as tiktoken counts."""
    tokens = split_tokens(text, model)
    ids = tiktoken.get_encoding(ENCODINGS[model]).encode_ordinary(text)
    assert "".join(tokens) == text
    assert len(tokens) == len(ids) == count_tokens(text, model)


@settings(max_examples=500)
@given(texts.filter(lambda text: REPLACEMENT not in text), models)
def test_each_character_comes_with_the_last_of_its_bytes(text: str, model: str) -> None:
    """After each token the client has all characters that are complete, and no other."""
    encoding = tiktoken.get_encoding(ENCODINGS[model])
    said, sent = "", b""
    for token, number in zip(
        split_tokens(text, model), encoding.encode_ordinary(text), strict=True
    ):
        said += token
        sent += encoding.decode_single_token_bytes(number)
        assert said == sent.decode("utf-8", "ignore")


@given(texts, models)
def test_ids_and_bytes_are_those_of_the_text(text: str, model: str) -> None:
    """The ids behind the tokens are the text's, and their bytes are its UTF-8."""
    tokens = split_tokens(text, model)
    ids = token_ids(tokens, model)
    assert [number for each in ids for number in each] == tiktoken.get_encoding(
        ENCODINGS[model]
    ).encode_ordinary(text)
    parts = [part for each in ids for part in token_bytes(each, model)]
    assert b"".join(parts) == text.encode()
    assert complete_characters(parts) == tokens


def test_long_text_comes_back_whole() -> None:
    """So does one of a million characters that tiktoken cannot split."""
    text = "é" + " " * 1_100_000 + FAMILY
    tokens = split_tokens(text, "gpt-4")
    assert "".join(tokens) == text
    assert len(tokens) == count_tokens(text, "gpt-4")


def test_lone_surrogate_is_replaced() -> None:
    """What no UTF-8 can hold is what tiktoken counts in its place."""
    assert "".join(split_tokens("a\ud800b", "gpt-4")) == f"a{REPLACEMENT}b"


@pytest.mark.parametrize("model", sorted(MODELS.values()))
def test_tokens_of_a_cut_text_have_ids(model: str) -> None:
    """A token that was cut, so that the text has more tokens than it, has as many ids."""
    ids = token_ids([" mountai", "n"], model)
    parts = token_bytes([number for each in ids for number in each], model)
    assert b"".join(parts) == b" mountain"


@given(st.text(max_size=50), st.data())
def test_bytes_cut_anywhere_are_whole_characters(text: str, data: st.DataObject) -> None:
    """However UTF-8 is cut into parts, each character comes with its last byte."""
    utf8 = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(utf8)), max_size=5)))
    parts = [utf8[a:b] for a, b in zip([0, *cuts], [*cuts, len(utf8)], strict=True)]
    characters = complete_characters(parts)
    assert "".join(characters) == text
    assert len(characters) == len(parts)
