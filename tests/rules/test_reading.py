"""Files of rules: what is wrong with them is told with line, rule and field."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from emulator.rules.reading import RulesError, check_rules, read_rules
from emulator.rules.ruleset import Rules
from emulator.settings import ConfigError, Settings
from tests.rules.making import rules_of
from tests.serving.test_settings import failed_start


def read(folder: Path, text: str) -> Rules:
    """Return the rules that a file with this text holds."""
    file = folder / "rules.yaml"
    file.write_text(text)
    return read_rules(file, Settings(), {})


TWO = [{"text": "a"}, {"text": "c"}]
BAD = {
    "yaml": ("- ttft_ms: [", "line 1: expected"),
    "no list": ("ttft_ms: 1", "line 1: expected a list, but got fields with values"),
    "empty": ("", "line 1: expected a list, but got nothing"),
    "no fields": ("- ttft_ms: 1\n- b", "line 2: rule 'rule-2': expected fields with values"),
    "unknown": (
        "- name: a\n\n  ttft: 5",
        "line 3: rule 'a': ttft: there is no such field; did you mean ttft_ms? There are ",
    ),
    "unknown match": (
        "- match:\n    modle: x\n  ttft_ms: 1",
        "line 2: rule 'rule-1': match.modle: there is no such field; did you mean model? There",
    ),
    "unknown answer": (
        "- answer: {txt: x}",
        "line 1: rule 'rule-1': answer.0.txt: there is no such field; did you mean text? There",
    ),
    "twice": ("- ttft_ms: 5\n  ttft_ms: 6", "line 2: ttft_ms: it is there twice"),
    "value": ("- itl_ms: soon", "line 1: rule 'rule-1': itl_ms: expected a number of"),
    "range": ("- itl_ms: -1", "from 0 to 60000, but got '-1'"),
    "null": ("- itl_ms:", "itl_ms: expected one of a number"),
    "jitter": ("- itl_jitter: x", "itl_jitter: expected 'normal"),
    "trace": ("- itl_jitter: trace:x", "expected a trace of this server"),
    "length": (
        "- ttft_ms: 1\n- output_length: 131072\n  reasoning_length: 1",
        "line 2: rule 'rule-2': expected at most 131072 tokens, but got 131073",
    ),
    "stream": ("- match: {stream: 1}\n  ttft_ms: 1", "match.stream: Input should be a valid bool"),
    "regex": ("- match: {text_regex: '('}\n  ttft_ms: 1", "match.text_regex: expected a regular"),
    "kind": ("- fault: {kind: explode}", "fault.kind: expected one of status, error"),
    "span": ("- fault: {kind: eof, after_tokens: {min: 5, max: 4}}", "expected a min of at most"),
    "contradiction": ("- fault: {kind: eof, status: 500}", "fault.status: expected a kind that"),
    "no kind": ("- fault: {probability: 0.5}", "fault.probability: expected kind, status"),
    "times": ("- times: 0\n  ttft_ms: 1", "times: Input should be greater than or equal to 1"),
    "chance": ("- probability: 2\n  ttft_ms: 1", "probability: Input should be less than or equal"),
    "nothing": ("- name: idle\n  match: {model: x}", "line 1: rule 'idle': it says nothing"),
    "no answers": ("- answer: []", "answer: "),
    "empty answer": ("- answer: {template: false}", "expected something that the answer says"),
    "two texts": ("- answer: {text: a, json: 1}", "expected no text beside json"),
    "parts": ("- answer: {parts: [{text: a}], text: b}", "expected no text beside parts"),
    "part": ("- answer: {parts: [{text: a, refusal: b}]}", "expected one of text, reasoning"),
    "late thought": ("- answer: {parts: [{text: a}, {reasoning: b}]}", "expected reasoning before"),
    "at_end": ("- ttft_ms: 1\n  at_end: repeat", "at_end: expected an answer beside it"),
    "name": ("- name: 'a,b'\n  ttft_ms: 1", "name: String should match pattern"),
    "same name": (
        "- {name: a, ttft_ms: 1}\n- {name: a, ttft_ms: 2}",
        "line 2: rule 'a': name: expected a name of its own, but rule 1 is called so too",
    ),
    "template": (
        "- name: t\n  answer:\n    text: hi\n- name: u\n  answer:\n    text: '{{ usr }}'",
        "line 6: rule 'u': answer.text: there is no name 'usr'; did you mean user? There are user,",
    ),
    "template line": (
        '- answer: {text: "{{ user }}\\n{{ ("}',
        "rule 'rule-1': answer.text: template line 2: unexpected",
    ),
    "template in arguments": (
        "- answer: {tool_calls: [{name: f, arguments: {a: ['{% set x = 1 %}']}}]}",
        "answer.tool_calls.0.arguments.a.0: template line 1: expected no assign",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_refused(tmp_path: Path, kind: str) -> None:
    """A bad file is refused with its name, the line, the rule, the field and what is wrong."""
    text, problem = BAD[kind]
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'rules.yaml'}, line ")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xff"])
def test_unreadable_files_are_told(tmp_path: Path, content: bytes | None) -> None:
    """A file that is not there, or holds no text, is refused with its name."""
    file = tmp_path / "r.yaml"
    if content:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"r\.yaml"):
        read_rules(file, Settings(), {})


def test_too_many_rules_are_refused(tmp_path: Path) -> None:
    """A file has a bound."""
    with pytest.raises(ConfigError, match="expected at most 1000 entries, but got 1001"):
        read(tmp_path, "- ttft_ms: 1\n" * 1001)


@pytest.mark.parametrize(
    ("data", "param", "problem"),
    [
        ({}, "rules", "expected a list"),
        ([{"ttft": 1}], "rules[0].ttft", "did you mean ttft_ms?"),
        ([{"ttft_ms": 1}, {"name": "x", "match": {"turn": -1}}], "rules[1].match.turn", "greater"),
        ([{"name": "x", "fault": {"kind": "eof", "status": 500}}], "rules[0].fault.status", "kind"),
        ([{"answer": {"text": "{{ x }}"}}], "rules[0].answer.text", "there is no name 'x'"),
        ([5], "rules[0]", "expected fields with values"),
    ],
)
def test_bad_data_is_told_as_a_file(data: Any, param: str, problem: str) -> None:  # noqa: ANN401 - JSON
    """Rules that come as data are checked as those of a file; an error has the path."""
    with pytest.raises(RulesError) as caught:
        check_rules(data, Settings(), {})
    assert caught.value.param == param
    assert problem in str(caught.value)


def test_names_are_places_where_none_is_given() -> None:
    """A rule without a name is called by its place, counted from 1."""
    rules = rules_of({"ttft_ms": 1}, {"name": "own", "ttft_ms": 1}, {"ttft_ms": 1})
    assert [rule.name for rule in rules.rules] == ["rule-1", "own", "rule-3"]


def test_rules_travel() -> None:
    """Rules that were pickled are the same, and what was compiled of them stays behind."""
    rules = rules_of({"match": {"text_regex": "a+"}, "answer": {"text": "{{ user }}"}})
    size = len(pickle.dumps(rules))
    assert rules.matcher
    assert len(pickle.dumps(rules)) == size
    assert pickle.loads(pickle.dumps(rules)) == rules  # noqa: S301 - our own


@pytest.mark.parametrize(
    ("entries", "warned"),
    [
        ([{"ttft_ms": 1}, {"match": {"model": "x"}, "ttft_ms": 2}], True),
        ([{"ttft_ms": 1}, {"match": {"model": "x"}, "ttft_ms": 2, "itl_ms": 1}], False),
        ([{"ttft_ms": 1}, {"itl_ms": 1}, {"ttft_ms": 2, "itl_ms": 1}], True),
        ([{"times": 1, "ttft_ms": 1}, {"ttft_ms": 2}], False),
        ([{"probability": 0.5, "ttft_ms": 1}, {"ttft_ms": 2}], False),
        ([{"scope": "a", "ttft_ms": 1}, {"ttft_ms": 2}], False),
        ([{"answer": {"text": "a"}}, {"answer": {"text": "b"}}], True),
        (
            [
                {"answer": [{"text": "a"}, {"text": "c"}], "at_end": "pass"},
                {"answer": {"text": "b"}},
            ],
            False,
        ),
        ([{"fault": {"kind": "no-done"}}, {"fault": {"kind": "eof"}}], False),
        ([{"fault": {"kind": "eof"}}, {"fault": {"kind": "reset"}}], True),
    ],
)
def test_rules_that_never_decide_are_warned_of(entries: list[dict[str, Any]], warned: bool) -> None:
    """A rule is warned of exactly where the rules before it decide all that it says."""
    warnings = rules_of(*entries).warnings
    assert len(warnings) == warned
    assert not warned or f"'rule-{len(entries)}' never decides" in warnings[0]


@pytest.mark.usefixtures("local_only")
def test_bad_rules_stop_the_start(tmp_path: Path) -> None:
    """A bad file ends ``bentoml serve`` with file, line, rule and field, and no traceback."""
    file = tmp_path / "rules.yaml"
    file.write_text("- name: ok\n  ttft_ms: 1\n- name: bad\n  fault: {kind: explode}\n")
    message = " ".join(failed_start("--arg", f"rules={file}").split("\n"))
    assert "The setting 'rules'" in message
    assert "rules.yaml, line 4: rule 'bad': fault.kind: expected one of status" in message
    assert "Traceback" not in message
