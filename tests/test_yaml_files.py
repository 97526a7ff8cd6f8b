"""The reader of YAML files: what comes of a file, and what is said of a bad one."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from emulator.settings import ConfigError
from emulator.yaml_files import MAX_FAULTS_TOLD, Document


class Strict(BaseModel):
    """A model that takes no other fields."""

    model_config = ConfigDict(extra="forbid")


class Match(Strict):
    """A condition."""

    model: str = "*"
    stream: bool | None = Field(None, strict=True)


class Text(Strict):
    """One kind of answer."""

    kind: Literal["text"]
    content: str


class Call(Strict):
    """Another kind of answer."""

    kind: Literal["call"]
    name: str


class Rule(Strict):
    """A rule with all that may be nested in one."""

    match: Match = Match()
    answer: Annotated[Text | Call, Field(discriminator="kind")] | None = None
    weights: dict[int, float] = {}
    token: str | None = None


class RulesFile(Strict):
    """What a file holds."""

    rules: Annotated[tuple[Rule, ...], Field(max_length=3)] = ()


def document(folder: Path, text: str | bytes) -> Document[RulesFile]:
    """Return a file of rules with this text, in which tokens are secret."""
    path = folder / "rules.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return Document(path, RulesFile, secret={"token"})


def refusal(folder: Path, text: str | bytes) -> str:
    """Return what is said of a file of rules with this text, after the file's name."""
    with pytest.raises(ConfigError) as caught:
        document(folder, text)
    name = str(folder / "rules.yaml")
    assert str(caught.value).startswith(name)
    return str(caught.value).removeprefix(name)


GOOD = """
rules:
- match: {model: "gpt-4*", stream: true}
  answer: {kind: text, content: Paris}
- &second
  weights: {1: 0.5}
- <<: *second
  token: abc
"""


def test_content_is_checked_and_typed(tmp_path: Path) -> None:
    """A good file becomes an object of its model; aliases and merged keys are YAML's."""
    first, second, third = document(tmp_path, GOOD).content.rules
    assert first.match == Match(model="gpt-4*", stream=True)
    assert first.answer == Text(kind="text", content="Paris")
    assert third == second.model_copy(update={"token": "abc"})


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_empty_file_gives_no_field(tmp_path: Path, text: str) -> None:
    """A file without content is a model of which no field is given."""
    assert document(tmp_path, text).content == RulesFile()


def test_list_at_the_root(tmp_path: Path) -> None:
    """A file may hold a list; its index is not told, as the line says which entry it is."""
    path = tmp_path / "list.yaml"
    path.write_text("- match: {model: a}\n- match: {stream: 1}\n")
    with pytest.raises(ConfigError, match=r"list.yaml, line 2: match.stream: Input should be"):
        Document(path, TypeAdapter(tuple[Rule, ...]))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "rules:\n- match:\n    stream: 1",
            ", line 3: rules.0.match.stream: Input should be a valid",
        ),
        ("rules:\n- match:\n    stream: 1", "boolean, but got 1"),
        ("rules: 5", ", line 1: rules: expected a list, but got 5"),
        ("rules: {}", ", line 1: rules: expected a list, but got fields with values"),
        ("rules:", ", line 1: rules: expected a list, but got nothing"),
        ("- a", ", line 1: expected fields with values, but got a list"),
        ("rules:\n- []", ", line 2: rules.0: expected fields with values, but got a list"),
        ("rules:\n- {answer: {kind: call}}", ", line 2: rules.0.answer.call.name: it is missing"),
        ("rules:\n- weights:\n    2: x", ", line 3: rules.0.weights.2: Input should be a valid"),
        (
            "rules:\n" + "- {}\n" * 4,
            ", line 5: rules.3: expected at most 3 entries, but got 4",
        ),
        ("rules: []\nrules: []", ", line 2: rules: it is there twice"),
        ("rules:\n- weights: {1: 1, '1': 2}", ", line 2: 1: it is there twice"),
        ("rules:\n- token: 2026-13-01", ", line 2: month must be in 1..12"),
        ("rules:\n- weights: [\n", ", line 3: "),
        ("rules:\n  \x00", ": expected YAML, but got unprintable text"),
        (b"\xff\xfe\xff", ": expected text in UTF-8"),
        ("[" * 5000, ": expected YAML that is nested less deeply"),
    ],
)
def test_bad_file_is_told(tmp_path: Path, text: str | bytes, told: str) -> None:
    """What is wrong is told with the line, the field, what was expected and what came."""
    assert told in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rule: []", "rule: there is no such field; did you mean rules? There are rules"),
        (
            "rules:\n- mach: {}",
            "rules.0.mach: there is no such field; did you mean match? "
            "There are match, answer, weights, token",
        ),
        (
            "rules:\n- match: {colour: blue}",
            "rules.0.match.colour: there is no such field; there are model, stream",
        ),
        (
            "rules:\n- answer: {kind: text, content: a, nam: b}",
            "nam: there is no such field; did you mean name? There are kind, content, name",
        ),
    ],
)
def test_unknown_field_is_told_with_the_nearest(tmp_path: Path, text: str, told: str) -> None:
    """A field that there is not is refused with the nearest there is, and with all there are."""
    assert refusal(tmp_path, text).endswith(told)


def test_several_faults_are_told_at_once(tmp_path: Path) -> None:
    """All faults are told in one line, up to a bound."""
    told = refusal(tmp_path, "rules:\n- token: 1\n- match: {stream: 2}\n")
    assert told.startswith(
        ", line 2: rules.0.token: Input should be a valid string; line 3: rules.1."
    )
    fields = "".join(f"\n- bad{number}: 1" for number in range(20))
    path = tmp_path / "many.yaml"
    path.write_text(fields)
    with pytest.raises(ConfigError) as caught:
        Document(path, TypeAdapter(list[Rule]))
    assert str(caught.value).count("; line ") == MAX_FAULTS_TOLD - 1


@pytest.mark.parametrize(
    "text",
    [
        "rules:\n- token: 123456789",
        "rules:\n- token: {a: 123456789}",
        "rules:\n- token: *123456789",
        "rules:\n- token: '123456789",
        "rules:\n- token: !!int '123456789x'",
    ],
)
def test_secrets_are_not_told(tmp_path: Path, text: str) -> None:
    """No message holds the value of a secret field, nor a part of it."""
    assert "123456789" not in refusal(tmp_path, text)


def test_error_at_a_place(tmp_path: Path) -> None:
    """The reader of a file can find faults of its own; what is not there is told at its parent."""
    rules = document(tmp_path, GOOD)
    name = tmp_path / "rules.yaml"
    assert str(rules.error(("rules", 0, "match", "model"), "it matches nothing")) == (
        f"{name}, line 3: rules.0.match.model: it matches nothing"
    )
    assert str(rules.error(("rules", 1, "answer"), "expected one")) == (
        f"{name}, line 5: rules.1.answer: expected one"
    )
    assert str(rules.error((), "expected a rule")) == f"{name}, line 1: expected a rule"


def test_missing_file_is_told(tmp_path: Path) -> None:
    """A file that is not there, or is none, is refused with its path."""
    for path, reason in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=f"{path}: {reason}"):
            Document(path, RulesFile)


def test_long_values_are_cut(tmp_path: Path) -> None:
    """A message shows the beginning of a long value."""
    assert len(refusal(tmp_path, f"rules: {'x' * 10_000}")) < 250
