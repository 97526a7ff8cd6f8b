"""The document of changes, the state it makes, and what each alteration makes of it."""

from typing import Any

import pytest

from emulator.contract.errors import APIError
from emulator.control.changes import alterations, rule_list
from emulator.control.changes.building import Builder
from emulator.control.changes.document import NOTHING, Changes
from emulator.limits.resets import MAX_SCOPES, Resets
from emulator.settings import Settings
from emulator.state import read_state

NOW = 1_000_000.0


def rules(*names: str) -> list[rule_list.Entry]:
    """Return rules of these names."""
    return rule_list.listed([{"name": name, "fault": {"status": 500}} for name in names], NOW)


def names(changes: Changes, builder: Builder) -> list[str]:
    """Return the names of the rules in force."""
    return [entry.data["name"] for entry in builder.entries(changes)]


@pytest.fixture
def builder() -> Builder:
    """Return what makes states, of a start with a limit."""
    return Builder(read_state(Settings(rpm=10)))


def test_a_document_is_read_as_it_was_written() -> None:
    """Packing and unpacking changes nothing, and no document is no change."""
    changes = Changes(3, 2**63, 7, b'{"itl_ms":1}', b"[]", b"x" * 1000, b"{}")
    assert Changes.unpacked(changes.packed()) == changes
    assert Changes.unpacked(b"") is NOTHING


@pytest.mark.parametrize("document", [b"x", b"y" * 100, Changes().packed() + b"more"])
def test_what_is_no_document_is_refused(document: bytes) -> None:
    """A document that somebody else wrote is not taken for one."""
    with pytest.raises(ValueError, match="expected a document"):
        Changes.unpacked(document)


def test_a_change_of_times_keeps_the_policy(builder: Builder) -> None:
    """What has nothing to do with limits leaves the policy as it is, with all its memory."""
    policy = builder.build(NOTHING).policy
    changes = alterations.patch_settings(NOTHING, {"itl_ms": 3})
    assert builder.build(changes).policy is policy
    limited = alterations.patch_settings(changes, {"rpm": 20})
    other = builder.build(limited).policy
    assert other is not policy
    faster = alterations.patch_settings(limited, {"itl_ms": 4})
    assert builder.build(faster).policy is other


def test_limits_can_begin_and_end() -> None:
    """A server without limits gets some, and loses them again."""
    builder = Builder(read_state(Settings()))
    assert builder.build(NOTHING).policy is None
    changes = alterations.patch_settings(NOTHING, {"tpm": 100})
    assert builder.build(changes).policy is not None
    assert builder.build(alterations.patch_settings(changes, {"tpm": None})).policy is None


def test_rules_are_placed(builder: Builder) -> None:
    """A new rule comes first, a known one stays in its place, and `before` moves either."""
    entries = rules("a", "b", "c")

    def placed(name: str, before: str | None = None) -> list[str]:
        (entry,) = rules(name)
        made = rule_list.placed(entries, entry, before)
        return names(alterations.put_rules(NOTHING, made), builder)

    assert placed("d") == ["d", "a", "b", "c"]
    assert placed("b") == ["a", "b", "c"]
    assert placed("d", "c") == ["a", "b", "d", "c"]
    assert placed("c", "a") == ["c", "a", "b"]
    with pytest.raises(APIError, match="Did you mean"):
        placed("d", "bb")
    with pytest.raises(APIError):
        placed("a", "a")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (5, "rules"),
        ([5], "rules[0]"),
        (
            [{"name": "a", "fault": {"status": 500}}, {"name": "a", "fault": {"status": 500}}],
            "rules[1].name",
        ),
        (
            [{"name": "rule-2", "fault": {"status": 500}}, {"fault": {"status": 500}}],
            "rules[1].name",
        ),
        ([{"name": "", "fault": {"status": 500}}], "rules[0].name"),
        ([{"name": "a\n", "fault": {"status": 500}}], "rules[0].name"),
        ([{"name": 5, "fault": {"status": 500}}], "rules[0].name"),
        ([{"ttl_s": 0, "fault": {"status": 500}}], "rules[0].ttl_s"),
        ([{"ttl_s": True, "fault": {"status": 500}}], "rules[0].ttl_s"),
        ([{"ttl_s": "5", "fault": {"status": 500}}], "rules[0].ttl_s"),
        ([{"fault": {"status": 500}}] * 1001, "rules"),
    ],
)
def test_a_list_that_is_none_is_refused(body: Any, param: str) -> None:  # noqa: ANN401
    """A refusal names the place in the list."""
    with pytest.raises(APIError) as error:
        rule_list.listed(body, NOW)
    assert error.value.body.param == param


def test_a_rule_that_contradicts_itself_is_refused(builder: Builder) -> None:
    """What the reader of the file refuses is refused here, with the path of the field."""
    with pytest.raises(APIError) as error:
        builder.build(
            alterations.put_rules(
                NOTHING,
                rule_list.listed(
                    [{"fault": {"status": 500, "after_ms": 1, "after_tokens": 1}}], NOW
                ),
            )
        )
    assert error.value.body.param == "rules[0].fault.after_ms"


def test_reset_goes_back_to_the_start(builder: Builder) -> None:
    """Settings, rules and the schedule go; what counts begins anew with the next revision."""
    changes = alterations.patch_settings(NOTHING, {"itl_ms": 3})._replace(revision=4)
    changes = alterations.put_rules(changes, rules("a"))
    made = alterations.reset(changes, alterations.what_of(None, None), "")
    state = builder.build(made)
    assert state.settings == builder.build(NOTHING).settings
    assert state.rules is None
    assert {what: resets.everybody for what, resets in state.resets.items()} == dict.fromkeys(
        ("counts", "limits", "journal", "engine"), 5
    )
    assert state.policy is not None
    assert state.policy.resets == Resets(5)


def test_reset_of_one_thing_leaves_the_others(builder: Builder) -> None:
    """What is not named stays."""
    changes = alterations.patch_settings(NOTHING, {"itl_ms": 3})
    changes = alterations.put_rules(changes, rules("a"))
    made = alterations.reset(changes, ["settings"], "")
    assert names(made, builder) == ["a"]
    assert builder.build(made).settings.itl_ms == 50


def test_reset_of_a_scope_leaves_the_others(builder: Builder) -> None:
    """Only the counts of the scope begin anew, until everybody's do."""
    made = alterations.reset(NOTHING._replace(revision=1), ["counts"], "one")
    made = alterations.reset(made._replace(revision=2), ["counts"], "two")
    state = builder.build(made)
    assert [state.counted_since(scope) for scope in ("one", "two", "three", "")] == [2, 3, 0, 0]
    everybody = alterations.reset(made._replace(revision=8), ["counts"], "")
    state = builder.build(everybody)
    assert [state.counted_since(scope) for scope in ("one", "two", "three", "")] == [9] * 4


def test_what_has_no_scope_is_not_reset_for_one() -> None:
    """Settings hold for everybody, so that a scope has none."""
    with pytest.raises(APIError) as error:
        alterations.what_of(["counts", "settings"], "one")
    assert error.value.body.param == "what[1]"
    assert set(alterations.what_of(None, "one")) == {"counts", "limits", "journal"}


def test_scopes_are_bounded() -> None:
    """The scope that was reset the longest ago gives way."""
    resets = Resets(0, {f"scope-{number}": number + 1 for number in range(MAX_SCOPES)})
    for number in range(MAX_SCOPES, MAX_SCOPES + 5):
        resets = resets.at(number + 1, f"scope-{number}")
    assert len(resets.scopes) == MAX_SCOPES
    assert resets.of("scope-4") == 0
    assert resets.of("scope-5") == 6
