"""Settings laid over those of the start: checked as at the start, whole or not at all."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emulator.contract.errors import APIError
from emulator.control.changes.live_settings import changed_settings, fixed, in_force
from emulator.control.changes.merging import composed, merged
from emulator.settings import Settings
from emulator.state import State, read_state

START = read_state(Settings(engine="paper", rpm=5, reasoning_lengths={"low": 1, "high": 9}))
BASE = in_force(START)


def changed(**overlay: Any) -> State:  # noqa: ANN401 - JSON
    """Return the state with some settings changed."""
    return changed_settings(START, BASE, overlay)


def refused(start: State = START, /, **overlay: Any) -> tuple[str | None, str]:  # noqa: ANN401
    """Return the param and the message of a refusal."""
    with pytest.raises(APIError) as error:
        changed_settings(start, in_force(start), overlay)
    assert error.value.status == 400
    return error.value.body.param, error.value.body.message


def test_what_is_in_force_is_a_patch_that_changes_nothing() -> None:
    """The settings as they are told can be sent back."""
    assert changed_settings(START, BASE, BASE) == START


def test_each_setting_that_can_change_changes() -> None:
    """What is patched holds, and all else is the start's."""
    state = changed(
        itl_ms=7,
        models=["a", "b"],
        reasoning_lengths={"low": 64},
        rpm=10,
        engine={"step_base_ms": 3, "max_num_seqs": 2},
        limits={"limits": [{"model": "a", "rpd": 9}]},
        ready=False,
    )
    settings, engine, files = state.settings, state.engine, state.files
    assert (settings.itl_ms, settings.models, settings.ready) == (7, ("a", "b"), False)
    assert settings.reasoning_lengths == {"low": 64, "high": 9}
    assert engine is not None
    assert (engine.step_base_ms, engine.max_num_seqs, engine.block_size) == (3, 2, 10)
    assert files.limits is not None
    assert files.limits.limits[0].rpd == 9
    assert settings.ttft_ms == START.settings.ttft_ms


@pytest.mark.parametrize(
    ("overlay", "param", "words"),
    [
        ({"itl": 1}, "itl", "Did you mean 'itl_ms'?"),
        ({"itl_ms": "7"}, "itl_ms", "expected a decimal, but got a string"),
        ({"itl_ms": True}, "itl_ms", "expected a decimal, but got a boolean"),
        ({"itl_ms": -1}, "itl_ms", "Expected a value >= 0, but got -1"),
        ({"itl_ms": 60_001}, "itl_ms", "Expected a value <= 60000, but got 60001"),
        ({"output_length": 1.5}, "output_length", "expected an integer"),
        ({"ready": 1}, "ready", "expected a boolean, but got an integer"),
        ({"models": "a,b"}, "models", "expected an array, but got a string"),
        ({"models": []}, "models", "empty array"),
        ({"head": "now"}, "head", "'accepted' and 'first-token'"),
        ({"workers": 3}, "workers", "expected a setting that can change"),
        ({"control_key": "x" * 20}, "control_key", "expected a setting that can change"),
        ({"cors_origins": ["here"]}, "cors_origins[0]", "does not match pattern"),
        ({"itl_jitter": "foo:1"}, "itl_jitter", "but got 'foo:1'"),
        ({"itl_jitter": "trace:none"}, "itl_jitter", "none"),
        ({"max_output_length": 5}, "output_length", "at most max_output_length (5), but is 20"),
        ({"head": "first-token", "keepalive_ms": 5}, "keepalive_ms", "must be 0"),
        ({"reasoning_lengths": {"low": -1}}, "reasoning_lengths.low", ">= 0, but got -1"),
        ({"engine": {"step_base": 1}}, "engine.step_base", "Did you mean 'step_base_ms'?"),
        ({"engine": {"block_size": 1}}, "engine.block_size", "Unknown parameter"),
        ({"engine": {"step_base_ms": 0, "step_per_sequence_ms": 0}}, "engine", "no time"),
        ({"engine": {"overload_status": 500}}, "engine.overload_status", "429"),
        ({"engine": {"batch_bend": 4}}, "engine.batch_bend", "given together"),
        ({"engine": {"step_cv": -1}}, "engine.step_cv", "0"),
        ({"engine": 5}, "engine", "expected an object"),
        ({"limits": {"limits": [{"model": "zz"}]}}, "limits.limits[0].model", "no model"),
        ({"limits": {"limits": [{"modl": "*"}]}}, "limits.limits[0].modl", "mean 'model'?"),
        ({"limits": {"limits": [{"rpm": 0}]}}, "limits.limits[0].rpm", ">= 1, but got 0"),
        ({"limits": {"limits": [{"key": "a", "rpm": 1}]}}, "limits.limits[0].key", "api_keys"),
        ({"limits": {"default": {"rpm": 1, "rpd": 1}}}, "limits.default", "rpm or rpd"),
    ],
)
def test_what_is_wrong_is_named(overlay: dict[str, Any], param: str, words: str) -> None:
    """A refusal names the path of the field, what was expected and what came."""
    told, message = refused(**overlay)
    assert told == param
    assert words in message


def test_an_engine_cannot_be_begun() -> None:
    """A server that was started without an engine has none to change."""
    param, message = refused(read_state(Settings()), engine={"step_base_ms": 3})
    assert param == "engine"
    assert "started with the setting 'engine'" in message


def test_no_secret_is_told() -> None:
    """What cannot change is told too, but for the key of control."""
    state = read_state(Settings(control_key="a-secret-of-16-characters"))
    told = str((in_force(state), fixed(state), state))
    assert "workers" in told
    assert "a-secret" not in told


def test_limits_of_a_file_can_be_replaced_and_come_back(tmp_path: Any) -> None:  # noqa: ANN401
    """A patch lies over the file of limits; without it the file counts."""
    file = tmp_path / "limits.yaml"
    file.write_text("default: {rpm: 3, tpd: 7}\nlimits: [{model: 'gpt-4', rpm: null}]\n")
    start = read_state(Settings(limits=file))
    state = changed_settings(start, in_force(start), {"limits": {"default": {"rpm": 4}}})
    assert state.files.limits is not None
    assert state.files.limits.default.model_dump(exclude_unset=True) == {"rpm": 4, "tpd": 7}
    assert changed_settings(start, in_force(start), {}).files == start.files


# --------------------------------------------------------------------------------------
# Merge patches
# --------------------------------------------------------------------------------------

# The examples of RFC 7396, appendix A, that have an object for the patch.
RFC = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "result"), RFC)
def test_patches_merge_as_the_rfc_says(target: object, patch: object, result: object) -> None:
    """Objects merge, null takes away, and anything else replaces."""
    assert merged(target, patch) == result


NAMES = st.sampled_from("abc")
VALUES = st.recursive(
    st.integers(0, 3), lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=5
)
PATCHES = st.dictionaries(NAMES, st.none() | VALUES, max_size=3)


@given(st.lists(st.dictionaries(NAMES, st.none() | st.integers(0, 3), max_size=3), max_size=6))
def test_null_goes_back_to_the_start(patches: list[dict[str, int | None]]) -> None:
    """After any patches each field has its last value, or that of the start where it was null."""
    base, model = {"a": 7, "b": 8, "c": 9}, {"a": 7, "b": 8, "c": 9}
    overlay: dict[str, Any] = {}
    for patch in patches:
        overlay = composed(overlay, patch)
        for name, value in patch.items():
            model[name] = base[name] if value is None else value
    assert merged(base, overlay) == model
