"""Exact lengths, encodings, prompt and image counts, and the vocabularies' files."""

import hashlib
import json
import random
import shutil
from pathlib import Path
from typing import Literal

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.answers.corpus import Corpus
from emulator.prompts.counting import count_image_tokens, count_prompt_tokens
from emulator.settings import DEFAULT_MODELS, MAX_OUTPUT_LENGTH
from tests.support.server import REPOSITORY
from tests.support.wire import token_count
from tokenizer import (
    TokenGenerator,
    VocabularyError,
    count_tokens,
    encoding_name,
    load_encodings,
    locate_vocabularies,
)

ENCODINGS = ["cl100k_base", "o200k_base", "p50k_base"]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """Return the corpus that texts are taken from."""
    load_encodings()
    return Corpus()


@pytest.fixture(scope="module")
def tokens(corpus: Corpus) -> set[str]:
    """Return every token that occurs in answers: the longest answer holds them all."""
    return set(corpus.write(MAX_OUTPUT_LENGTH))


def length(text: str, encoding: str) -> int:
    """Count tokens with tiktoken alone, without a list of them."""
    return int(tiktoken.get_encoding(encoding).encode_to_numpy(text).size)


# --------------------------------------------------------------------------------------
# Texts
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_length_is_exact(corpus: Corpus, encoding: str) -> None:
    """A new text of each length from 1 to 2,000 re-encodes to that many tokens."""
    texts = {n: "".join(corpus.write(n)) for n in range(1, 2001)}
    wrong = [n for n, text in texts.items() if length(text, encoding) != n]
    assert wrong == []


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("n", [2001, 4096, 10_007, 65_536, 106_003, 120_001, MAX_OUTPUT_LENGTH])
def test_long_texts_are_exact(corpus: Corpus, encoding: str, n: int) -> None:
    """Texts up to the limit re-encode to the length that was asked for."""
    assert length("".join(corpus.write(n)), encoding) == n


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_prefix_is_exact(corpus: Corpus, encoding: str) -> None:
    """What a stream has sent so far re-encodes to as many tokens as there were events."""
    sent = corpus.write(400)
    wrong = [n for n in range(1, 401) if length("".join(sent[:n]), encoding) != n]
    assert wrong == []


@given(n=st.integers(1, 60))
@settings(max_examples=100, deadline=None)
def test_short_texts_are_exact(corpus: Corpus, n: int) -> None:
    """Whatever sentence a short text begins with, it has its n tokens in all encodings."""
    text = "".join(corpus.write(n))
    assert [length(text, encoding) for encoding in ENCODINGS] == [n] * 3


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_piece_is_one_token(tokens: set[str], encoding: str) -> None:
    """Every word and mark is one token by itself."""
    assert [piece for piece in tokens if token_count(piece, encoding) != 1] == []


def test_pieces_need_no_escapes(tokens: set[str]) -> None:
    """Every word and mark is in JSON what it is in Python."""
    assert [piece for piece in tokens if json.dumps(piece) != f'"{piece}"'] == []


def test_texts_are_plain_text(tokens: set[str]) -> None:
    """Answers are printable ASCII: no U+FFFD, no control characters, no broken UTF-8."""
    text = "".join(tokens)
    assert text.isascii()
    assert text.isprintable()


def test_texts_begin_with_a_sentence(corpus: Corpus) -> None:
    """Every text begins with a capital letter and ends its sentences with a full stop."""
    texts = ["".join(corpus.write(100)) for _ in range(50)]
    assert all(text[0].isupper() for text in texts)
    assert all(after.isupper() for text in texts for after in first_letters(text))


def first_letters(text: str) -> list[str]:
    """Return the letter after each full stop that another sentence follows."""
    return [sentence[1] for sentence in text.split(".")[1:] if len(sentence) > 1]


def test_texts_differ(corpus: Corpus) -> None:
    """A thousand texts of 60 tokens are a thousand different ones."""
    rng = random.Random(1)
    assert len({tuple(corpus.write(60, rng)) for _ in range(1000)}) == 1000


# --------------------------------------------------------------------------------------
# Encodings
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "models"),
    [
        (
            "cl100k_base",
            "gpt-3.5-turbo gpt-3.5-turbo-0301 gpt-3.5-turbo-16k gpt-4 gpt-4-0314 gpt-4-32k "
            "gpt-4-turbo gpt-4-vision-preview",
        ),
        (
            "o200k_base",
            "gpt-4o gpt-4o-mini gpt-4o-2024-05-13 chatgpt-4o-latest gpt-4.1 gpt-4.1-mini "
            "gpt-4.5-preview gpt-5 gpt-5-mini o1 o1-mini o3 o3-mini o4-mini",
        ),
        ("p50k_base", "text-davinci-002 text-davinci-003"),
        (
            "o200k_base",
            "my-model meta-llama/Llama-3.1-8B-Instruct gpt2 text-davinci-edit-001 GPT-4 模型 x",
        ),
    ],
)
def test_encoding_of_models(encoding: str, models: str) -> None:
    """A model has tiktoken's encoding, and o200k_base if tiktoken knows none of the three."""
    assert {encoding_name(model) for model in models.split()} == {encoding}


@given(model=st.text(max_size=40))
@settings(max_examples=100, deadline=None)
def test_every_name_has_an_encoding(model: str) -> None:
    """Whatever a model is called, it has one of the three encodings."""
    assert encoding_name(model) in ENCODINGS


# --------------------------------------------------------------------------------------
# Prompt counts
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [" " * 1_000_000, "\t " * 500_000, " " * 999_999 + "x"])
def test_runs_of_spaces_that_tiktoken_cannot_split(text: str) -> None:
    """A million spaces, which overflow the stack of tiktoken's regex engine, are counted."""
    piece = text[: len(text) // 8]
    assert count_tokens(text, "gpt-4o") == pytest.approx(8 * count_tokens(piece, "gpt-4o"), abs=16)


@given(text=st.text(max_size=300), model=st.sampled_from(["gpt-4", "gpt-4o", "text-davinci-003"]))
@settings(max_examples=100, deadline=None)
def test_counts_are_tiktokens(text: str, model: str) -> None:
    """A text counts what tiktoken makes of it as ordinary text."""
    assert count_tokens(text, model) == token_count(text, encoding_name(model))


@pytest.mark.parametrize(
    "text", ["<|endoftext|>", "<|fim_prefix|> <|im_start|>", "a<|endofprompt|>b"]
)
def test_special_tokens_are_ordinary_text(text: str) -> None:
    """The name of a special token neither fails nor counts as one token."""
    assert count_tokens(text, "gpt-4") == token_count(text, "cl100k_base") > 1


@pytest.mark.parametrize(
    ("model", "messages", "named", "tokens"),
    [
        ("gpt-4", 1, 0, 3 + 3),
        ("gpt-4", 3, 0, 3 + 9),
        ("gpt-4", 3, 2, 3 + 9 + 2),
        ("gpt-3.5-turbo-0301", 1, 0, 3 + 4),
        ("gpt-3.5-turbo-0301", 3, 2, 3 + 12 - 2),
    ],
)
def test_cost_of_messages(model: str, messages: int, named: int, tokens: int) -> None:
    """Beside its text a prompt costs 3, each message 3 and each name 1; 0301 has 4 and -1."""
    assert count_prompt_tokens(model, [], messages, named) == tokens


# --------------------------------------------------------------------------------------
# Image counts
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "size", "detail", "tokens"),
    [
        ("gpt-4o", (1024, 1024), "high", 765),
        ("gpt-4o", (2048, 4096), "high", 1105),
        ("gpt-4o", (4096, 8192), "low", 85),
        ("gpt-4o", (None, None), "high", 765),
        ("gpt-4o", (None, None), "auto", 765),
        ("gpt-4o", (None, None), None, 765),
        ("gpt-4o-mini", (1024, 1024), "high", 25501),
        ("o1", (1024, 1024), "high", 675),
        ("o3", (1024, 1024), "low", 75),
        ("gpt-5", (1024, 1024), "high", 630),
        ("no-such-model", (1024, 1024), "high", 765),
    ],
)
def test_image_vectors(
    model: str,
    size: tuple[int | None, int | None],
    detail: Literal["auto", "low", "high"] | None,
    tokens: int,
) -> None:
    """The published examples of the tile formula, and each family's."""
    assert count_image_tokens(model, *size, detail) == tokens


SIDES = st.integers(1, 20_000)


@given(width=SIDES, height=SIDES)
@settings(max_examples=100, deadline=None)
def test_image_counts_are_bounded(width: int, height: int) -> None:
    """A picture of any size is at least one tile, and at most the 8 that fit 2048 x 768."""
    tiles, rest = divmod(count_image_tokens("gpt-4o", width, height, "high") - 85, 170)
    assert rest == 0
    assert 1 <= tiles <= 8


@given(width=SIDES, height=SIDES)
@settings(max_examples=100, deadline=None)
def test_image_counts_do_not_depend_on_the_way_up(width: int, height: int) -> None:
    """A picture counts the same when it is turned by 90 degrees."""
    upright = count_image_tokens("gpt-4o", width, height, "high")
    assert upright == count_image_tokens("gpt-4o", height, width, "high")


@pytest.mark.parametrize(
    ("wide", "high", "smallest", "tiles"),
    [
        (1, 1, 513, 4),  # shrunk to 768 x 768 if larger
        (4, 3, 256, 4),  # shrunk to 1024 x 768
        (2, 1, 768, 6),  # shrunk to 1536 x 768
        (4, 1, 512, 4),  # shrunk to 2048 x 512
        (8, 1, 256, 4),  # shrunk to 2048 x 256
    ],
)
def test_no_rounding_adds_a_tile(wide: int, high: int, smallest: int, tiles: int) -> None:
    """Pictures of one shape that are shrunk to whole tiles count the same at every size."""
    counts = {
        count_image_tokens("gpt-4o", wide * unit, high * unit, "high")
        for unit in range(smallest, smallest + 1500)
    }
    assert counts == {85 + 170 * tiles}


# --------------------------------------------------------------------------------------
# Vocabularies
# --------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the vocabularies to a folder of their own, and let TIKTOKEN_CACHE_DIR name it."""
    copied = Path(shutil.copytree(REPOSITORY / "tiktoken_cache", tmp_path / "vocabularies"))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(copied))
    return copied


def contents(folder: Path) -> dict[str, str]:
    """Return the hash of each file."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def test_operators_folder_is_used(folder: Path) -> None:
    """TIKTOKEN_CACHE_DIR decides where the vocabularies come from."""
    assert locate_vocabularies() == folder


def test_bundled_folder_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TIKTOKEN_CACHE_DIR the vocabularies are the repository's."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "to be restored afterwards")
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR")
    assert locate_vocabularies() == REPOSITORY / "tiktoken_cache"


@pytest.mark.parametrize("index", range(3))
def test_missing_vocabulary(folder: Path, index: int) -> None:
    """A missing vocabulary is an error that names file and remedy, and is not downloaded."""
    file = sorted(folder.iterdir())[index]
    file.unlink()
    left = contents(folder)
    with pytest.raises(VocabularyError, match="TIKTOKEN_CACHE_DIR") as caught:
        TokenGenerator()
    assert str(file) in str(caught.value)
    assert contents(folder) == left


@pytest.mark.parametrize("index", range(3))
def test_damaged_vocabulary(folder: Path, index: int) -> None:
    """A damaged vocabulary is an error that names file and remedy, and is not deleted."""
    file = sorted(folder.iterdir())[index]
    data = bytearray(file.read_bytes())
    data[random.Random(index).randrange(len(data))] ^= 1
    file.write_bytes(data)
    left = contents(folder)
    with pytest.raises(VocabularyError, match="TIKTOKEN_CACHE_DIR") as caught:
        TokenGenerator()
    assert str(file) in str(caught.value)
    assert contents(folder) == left


def test_truncated_vocabulary(folder: Path) -> None:
    """An empty file, as an interrupted checkout leaves it, is a damaged vocabulary."""
    next(folder.iterdir()).write_bytes(b"")
    with pytest.raises(VocabularyError):
        locate_vocabularies()


def test_models_of_the_list_have_known_encodings() -> None:
    """Each model of the specification's list has the encoding that tiktoken gives it."""
    expected = {model: tiktoken.encoding_name_for_model(model) for model in DEFAULT_MODELS}
    assert {model: encoding_name(model) for model in DEFAULT_MODELS} == expected
