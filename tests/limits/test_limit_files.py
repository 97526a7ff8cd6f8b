"""limits.yaml and keys.yaml: which limit holds for whom, and what a bad file is told."""

import base64
import hashlib
from pathlib import Path

import pytest

from emulator.limits.buckets import DAY, Bucket
from emulator.limits.keys import Caller, Keys, anyone, key_of
from emulator.limits.rules import Figures, Key, LimitsFile, Rules, read_keys, read_limits
from emulator.limits.words import NO_KEY, Refusal
from emulator.settings import DEFAULT_MODELS, ConfigError
from tests.support.documents import page

MODELS = ("gpt-4", "gpt-4-32k", "gpt-3.5-turbo")
SETTINGS = Figures(rpm=500, tpm=30_000)


def written(folder: Path, text: str) -> Path:
    """Return a file that holds `text`."""
    path = folder / "file.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def found(rules: Rules, name: str | None, model: str) -> tuple[int | None, int | None]:
    """Return the limits on requests and tokens that hold for a key and a model."""
    requests, tokens = rules.limits_of(name, model)
    return requests and requests.limit, tokens and tokens.limit


def test_the_most_particular_limit_holds(tmp_path: Path) -> None:
    """Requests and tokens are each taken from the first place that says something of them."""
    path = written(
        tmp_path,
        """
default: {rpm: 100}
limits:
  - {model: "gpt-4*", key: "team-*", rpm: 7}
  - {model: "gpt-4*", rpm: 60, tpm: null}
  - {model: "gpt-4-32k", rpm: 1}
""",
    )
    own = Key(name="solo", key="k", rpm=8)
    rules = Rules(SETTINGS, read_limits(path, MODELS, ["team-a", "solo"]), [own])

    assert found(rules, None, "gpt-3.5-turbo") == (100, 30_000)
    assert found(rules, None, "gpt-4") == (60, None)
    assert found(rules, None, "gpt-4-32k") == (60, None)
    assert found(rules, "team-a", "gpt-4") == (7, None)
    assert found(rules, "team-a", "gpt-3.5-turbo") == (100, 30_000)
    assert found(rules, "solo", "gpt-4") == (8, None)
    assert found(rules, None, "gpt-4-of-tomorrow") == (60, None)


def test_an_empty_file_limits_nothing(tmp_path: Path) -> None:
    """A file without lines, and settings without limits, let everything pass."""
    rules = Rules(Figures(), read_limits(written(tmp_path, "# none\n"), MODELS))

    assert found(rules, None, "gpt-4") == (None, None)


def test_a_limit_for_a_day() -> None:
    """A limit for a day takes the place of one for a minute."""
    rules = Rules(SETTINGS, LimitsFile(default=Figures(rpd=10_000)))

    assert rules.limits_of(None, "gpt-4").requests == Bucket("requests", 10_000, DAY)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "default:\n  rpm: -5\n",
            "line 2: default.rpm: Input should be greater than",
        ),
        ("default:\n  rpm: -5\n", "but got -5"),
        ("default:\n  rpm: many\n", "line 2: default.rpm: Input should be a valid"),
        ("default: {rpm: 1, rpd: 1}\n", "line 1: default: expected rpm or rpd, but got both"),
        ("default:\n  rpm: 1\n  rpm: 2\n", "line 3: rpm: it is there twice"),
        ("limits:\n- model: gpt-4\n  rps: 1\n", "line 3: limits.0.rps: there is no such field;"),
        ("limits:\n- model: gpt-4\n  rps: 1\n", "did you mean rpm? There are rpm, rpd, tpm, tpd,"),
        ("limits:\n- rpm: 1\n- model: gpt-5*\n", "line 3: limits.1.model: 'gpt-5*' matches no"),
        ("limits:\n- rpm: 1\n- model: gpt-5*\n", "Known models: gpt-4, gpt-4-32k, gpt-3.5-turbo."),
        ("limits:\n- key: team-a\n", "line 2: limits.0.key: keys have names only with"),
        ("limits: [\n", "line 2: "),
        ("- rpm: 1\n", "line 1: expected fields with values, but got a list"),
        ("default: &a\n  rpm: *a\n", "line 2: "),
        ("default:\n  rpm: \x00\n", "expected YAML"),
    ],
)
def test_bad_limits(tmp_path: Path, text: str, words: str) -> None:
    """A bad limits file is told with its name, the line and why."""
    path = written(tmp_path, text)

    with pytest.raises(ConfigError) as caught:
        read_limits(path, MODELS)

    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)


def test_a_glob_that_matches_no_key(tmp_path: Path) -> None:
    """A line for keys that nobody has stops the start."""
    with pytest.raises(ConfigError, match=r"line 2: limits.0.key: 'b\*' matches no key.*team-a"):
        read_limits(written(tmp_path, "limits:\n- key: b*\n"), MODELS, ["team-a"])


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing file is named."""
    with pytest.raises(ConfigError, match=r"none.yaml: No such file"):
        read_limits(tmp_path / "none.yaml", MODELS)


# --------------------------------------------------------------------------------------
# Keys
# --------------------------------------------------------------------------------------

SECRET = "sk-very-secret-0123456789"  # noqa: S105 - of nobody
DIGEST = hashlib.sha256(b"sk-by-digest").hexdigest()


def test_keys_are_found_by_key_or_digest(tmp_path: Path) -> None:
    """A key is known by itself, or by its sha256."""
    text = f"keys:\n- {{name: plain, key: {SECRET}, rpm: 5}}\n- {{name: hidden, sha256: {DIGEST}}}"

    content, keys = read_keys(written(tmp_path, text))

    assert [key.name for key in content.keys] == ["plain", "hidden"]
    assert keys.find(SECRET) == "plain"
    assert keys.find("sk-by-digest") == "hidden"
    assert keys.find("sk-by-diges") is None
    assert keys.find("") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            f"keys:\n- name: a\n  key: {SECRET}\n  sha256: {DIGEST}\n",
            "line 2: keys.0: expected",
        ),
        ("keys:\n- name: a\n", "line 2: keys.0: expected key or sha256"),
        (f"keys:\n- key: {SECRET}\n", "line 2: keys.0.name: it is missing"),
        (f"keys:\n- name: a b\n  key: {SECRET}\n", "line 2: keys.0.name: String should match"),
        (
            f"keys:\n- name: a\n  key: [{SECRET}]\n",
            "line 3: keys.0.key: Input should be a valid",
        ),
        (f"keys:\n- name: a\n  key: {SECRET} x\n", "line 3: keys.0.key: String should match"),
        (f"keys:\n- name: a\n  sha256: {SECRET}\n", "line 3: keys.0.sha256: String should match"),
        (f"keys:\n- name: a\n  key: '{SECRET}\n", "line 4: "),
        (f"keys:\n- name: a\n  key: *{SECRET}\n", "line 3: "),
        (f"keys:\n- name: a\n  key: {SECRET}\n  rpm: 0\n", "line 4: keys.0.rpm: Input should be"),
        (
            f"keys:\n- name: a\n  key: {SECRET}\n- name: a\n  key: x\n",
            "line 4: keys.1.name: the name a is there twice",
        ),
        (
            f"keys:\n- name: a\n  key: {SECRET}\n- name: b\n  key: {SECRET}\n",
            "line 4: keys.1: b has the same key as a",
        ),
        ("keys: []\n", "line 1: keys: Tuple should have at least 1 item"),
    ],
)
def test_bad_keys(tmp_path: Path, text: str, words: str) -> None:
    """A bad keys file is told with its name, the line and why, and without any key."""
    path = written(tmp_path, text)

    with pytest.raises(ConfigError) as caught:
        read_keys(path)

    assert str(caught.value).startswith(str(path))
    assert words in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "key"),
    [
        (None, ""),
        ("", ""),
        ("Bearer", ""),
        ("Bearer ", ""),
        ("Bearer sk-a", "sk-a"),
        ("bearer  sk-a ", "sk-a"),
        ("sk-a", ""),
        ("Token sk-a", ""),
        ("Basic " + base64.b64encode(b":sk-a").decode(), "sk-a"),
        ("Basic " + base64.b64encode(b"user:sk-a").decode(), ""),
        ("Basic %%%", ""),
    ],
)
def test_authorization_headers(header: str | None, key: str) -> None:
    """A key comes by Bearer, or as Basic's password with a blank user name."""
    assert key_of(header) == key


def test_callers() -> None:
    """With a keys file each name is a bucket, and other keys are a 401; without, each key is."""
    keys = Keys({hashlib.sha256(SECRET.encode()).digest(): "team-a"})

    wrong = keys.identify("Bearer sk-wrong-key-987654")

    assert keys.identify(f"Bearer {SECRET}") == Caller("team-a", b"team-a")
    assert keys.identify(None) is NO_KEY
    assert isinstance(wrong, Refusal)
    assert wrong.code == "invalid_api_key"
    assert wrong.message == (
        "Incorrect API key provided: sk-wrong*******7654. "
        "You can find your API key at https://platform.openai.com/account/api-keys."
    )
    assert anyone("Bearer x") != anyone("Bearer y")
    assert anyone(None) == anyone("Bearer ")


def test_examples_of_the_page_are_good(tmp_path: Path) -> None:
    """The files that the documentation shows can be used together."""
    limits, keys = page("docs/limits.md").blocks("yaml")

    content, found_keys = read_keys(written(tmp_path, keys))
    lines = read_limits(written(tmp_path, limits), DEFAULT_MODELS, [k.name for k in content.keys])

    assert found_keys.find("test") == "team-b"
    assert len(lines.limits) == 3
