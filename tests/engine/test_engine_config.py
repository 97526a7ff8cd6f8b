"""Engines' files: the bundled ones, and what is wrong with others."""

from pathlib import Path

import pytest

from emulator.engine.config import EngineConfig, load_engine, presets
from emulator.settings import ConfigError

VALID = """
source: a test
step_base_ms: 10
max_num_seqs: 4
max_num_batched_tokens: 100
kv_blocks: 10
block_size: 16
"""


@pytest.mark.parametrize("name", presets())
def test_presets(name: str) -> None:
    """Every bundled engine is valid and says where its figures come from."""
    assert len(load_engine(name).source) > 20


def test_enough_presets() -> None:
    """Beside the round numbers there are three engines from published fits at least."""
    assert "paper" in presets()
    assert len(presets()) >= 4


def test_a_file(tmp_path: Path) -> None:
    """A path that ends in .yaml is read; what it leaves out is off or free of charge."""
    file = tmp_path / "mine.yaml"
    file.write_text(VALID)
    config = load_engine(str(file))
    assert (config.prefix_caching, config.step_per_context_token_ms) == (False, 0)
    assert (config.overload_status, config.max_model_len) == (503, 160)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("block_size: sixteen", "block_size: Input should be a valid integer, but got 'sixteen'"),
        ("block_size: 0", "block_size: Input should be greater than or equal to 1, but got 0"),
        ("step_base_ms: .nan", "step_base_ms: Input should be a finite number, but got nan"),
        ("overload_status: 500", "overload_status: Input should be 429 or 503, but got 500"),
        ("max_num_seqs: true", "max_num_seqs: Input should be a valid integer, but got True"),
        ("step_base: 3", "step_base: there is no such field; did you mean step_base_ms?"),
        ("step_base: 3", "There are source, step_base_ms, step_per_prefill_token_ms, "),
        ("step_base_ms: 0", "a step would take no time"),
        ("max_model_len: 161", "max_model_len must be at most kv_blocks * block_size (160)"),
        ("batch_bend: 4", "batch_bend and step_per_sequence_above_ms must be given together"),
        ("step_cv: -0.1", "step_cv: Input should be greater than or equal to 0, but got -0.1"),
    ],
)
def test_a_bad_value(tmp_path: Path, change: str, message: str) -> None:
    """A value that is not valid is refused with the file, the key and what came."""
    file = tmp_path / "bad.yaml"
    key = change.partition(":")[0]
    lines = [line for line in VALID.splitlines() if not line.startswith(f"{key}:")]
    file.write_text("\n".join([*lines, change]))
    with pytest.raises(ConfigError) as refusal:
        load_engine(str(file))
    assert str(file) in str(refusal.value)
    assert message in str(refusal.value)


@pytest.mark.parametrize("key", ["source", "step_base_ms", "kv_blocks"])
def test_a_missing_key(tmp_path: Path, key: str) -> None:
    """A key that is required and missing is named."""
    file = tmp_path / "bad.yaml"
    lines = [line for line in VALID.splitlines() if not line.startswith(f"{key}:")]
    file.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=f"line 1: {key}: it is missing"):
        load_engine(str(file))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- a\n- list\n", "line 1: expected fields with values, but got a list"),
        (b"", "line 1: source: it is missing; line 1: step_base_ms: it is missing"),
        (b"a: [", "line 1: expected the node content"),
        (b"\xff\xfe\xfa", "expected text in UTF-8"),
    ],
)
def test_no_mapping(tmp_path: Path, content: bytes, message: str) -> None:
    """A file that is no mapping of keys to values is refused."""
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_engine(str(file))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", "expected one of blis-llama-3.1-8b-h100-tp2, .*, or a path .* got 'nothing'"),
        ("../engines/paper", "expected one of"),
        ("no/such.yaml", "no/such.yaml: No such file or directory"),
    ],
)
def test_an_unknown_engine(name: str, message: str) -> None:
    """A name that is no preset's, or a path to nothing, is refused with what there is."""
    with pytest.raises(ConfigError, match=message):
        load_engine(name)


def test_the_time_of_a_step() -> None:
    """A step takes a + b * prefill tokens + c * sequences + d * context tokens."""
    config = EngineConfig(
        source="a test",
        step_base_ms=1000,
        step_per_prefill_token_ms=100,
        step_per_sequence_ms=10,
        step_per_context_token_ms=1,
        max_num_seqs=1,
        max_num_batched_tokens=1,
        kv_blocks=1,
        block_size=1,
    )
    assert config.step_s(prefill_tokens=2, sequences=3, context_tokens=4) == 1.234
