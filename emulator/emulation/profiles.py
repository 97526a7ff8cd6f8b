"""profiles.yaml: what counts for a model where neither headers nor the body say it."""

import fnmatch
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml  # type: ignore[import-untyped]  # ships no types

from emulator.contract.error_words import placed
from emulator.contract.errors import APIError
from emulator.contract.headers import EmulationHeaders
from emulator.emulation.header_fields import HEADERS_BY_FIELD, check_headers, header_text
from emulator.emulation.jitter import parse_jitter
from emulator.settings import Settings
from emulator.timing.jitter import Floats

MAX_PROFILES = 1000
MAX_GLOB_LENGTH = 256
_MAX_CACHED_MODEL_LENGTH = 128
_NOTHING: Mapping[str, str] = {}


class ProfilesError(ValueError):
    """A file of profiles that cannot be used; the message names it, the line and why."""


class _FaultError(ValueError):
    """What is wrong, and the part of the file where it is."""

    def __init__(self, node: yaml.Node | None, problem: str) -> None:
        super().__init__(problem)
        self.line = 1 if node is None else node.start_mark.line + 1


@dataclass(frozen=True, slots=True)
class Profile:
    """The headers of all models that match a glob."""

    glob: str
    headers: Mapping[str, str]


class Profiles:
    """The profiles of a file, of which the first counts whose glob matches a model's name."""

    def __init__(self, profiles: tuple[Profile, ...]) -> None:
        self._profiles = profiles
        self._cached = lru_cache(maxsize=1024)(self._find)

    def of(self, model: str) -> Mapping[str, str]:
        """Return the headers that a request for this model has by default."""
        short = len(model) <= _MAX_CACHED_MODEL_LENGTH
        return (self._cached if short else self._find)(model)

    @property
    def cached(self) -> int:
        """How many models are remembered."""
        return self._cached.cache_info().currsize

    def _find(self, model: str) -> Mapping[str, str]:
        matching = (p.headers for p in self._profiles if fnmatch.fnmatchcase(model, p.glob))
        return next(matching, _NOTHING)


def read_profiles(path: Path, settings: Settings, traces: Mapping[str, Floats]) -> Profiles:
    """Read a file of profiles.

    Args:
        path: The file.
        settings: Say how long an answer may be.
        traces: The gaps of each trace, by name.

    Raises:
        ProfilesError: It cannot be read, or is no list of profiles.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
        return Profiles(tuple(_profiles(root, settings, traces)))
    except OSError as error:
        raise ProfilesError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ProfilesError(f"{path}: expected text in UTF-8") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ProfilesError(f"{path}, line {line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ProfilesError(f"{path}: {error}") from None
    except _FaultError as fault:
        raise ProfilesError(f"{path}, line {fault.line}: {fault}") from None


def _profiles(
    root: yaml.Node | None, settings: Settings, traces: Mapping[str, Floats]
) -> Iterator[Profile]:
    if not isinstance(root, yaml.SequenceNode):
        raise _FaultError(root, "expected a list of profiles, each with a model")
    if len(root.value) > MAX_PROFILES:
        raise _FaultError(root.value[MAX_PROFILES], f"expected at most {MAX_PROFILES} profiles")
    for node in root.value:
        yield _profile(node, settings, traces)


def _profile(node: yaml.Node, settings: Settings, traces: Mapping[str, Floats]) -> Profile:
    fields = _fields(node)
    if "model" not in fields:
        raise _FaultError(node, "model: it is missing")
    glob = fields.pop("model")
    if not isinstance(glob, yaml.ScalarNode) or not 1 <= len(glob.value) <= MAX_GLOB_LENGTH:
        raise _FaultError(glob, f"model: expected a text of 1 to {MAX_GLOB_LENGTH} characters")
    headers: dict[str, str] = {}
    for name, value in fields.items():
        headers[HEADERS_BY_FIELD[name]] = _checked(name, value, traces)
    checked = check_headers(headers)
    length = settings.output_length if checked.output_length is None else checked.output_length
    tokens, most = length + (checked.reasoning_length or 0), settings.max_output_length
    if tokens > most:
        raise _FaultError(node, f"expected at most {most} tokens, but got {tokens}")
    return Profile(glob.value, headers)


def _fields(node: yaml.Node) -> dict[str, yaml.Node]:
    """Return the nodes of a profile's fields."""
    if not isinstance(node, yaml.MappingNode):
        raise _FaultError(node, "expected fields with values")
    fields: dict[str, yaml.Node] = {}
    for key, value in node.value:
        name = str(key.value)
        if name != "model" and name not in PROFILE_FIELDS:
            raise _FaultError(key, f"{name}: there is no such field; there are {_LISTED}")
        if name in fields:
            raise _FaultError(key, f"{name}: it is there twice")
        fields[name] = value
    return fields


PROFILE_FIELDS = tuple(EmulationHeaders.model_fields)
_LISTED = ", ".join(("model", *PROFILE_FIELDS))


def _checked(field: str, node: yaml.Node, traces: Mapping[str, Floats]) -> str:
    """Return a field's value as its header says it."""
    text = header_text(yaml.SafeLoader("").construct_object(node))
    if text is None:
        raise _FaultError(node, f"{field}: expected one of a number, string or boolean")
    header = HEADERS_BY_FIELD[field]
    try:
        check_headers({header: text})
        if field.endswith("_jitter"):
            parse_jitter(header, text, traces)
    except APIError as error:
        raise _FaultError(node, placed(error, {header: field}).body.message) from None
    return text
