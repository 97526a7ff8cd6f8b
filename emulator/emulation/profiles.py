"""profiles.yaml: default X-* headers by model."""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model

from emulator.contract.error_words import placed
from emulator.contract.errors import APIError
from emulator.contract.headers import EmulationHeaders
from emulator.emulation.header_fields import HEADERS_BY_FIELD, check_headers, header_text
from emulator.settings import Settings
from emulator.timing.jitter import Floats, Jitter
from emulator.yaml_files import Document

MAX_PROFILES = 1000
MAX_GLOB_LENGTH = 256
_MAX_CACHED_MODEL_LENGTH = 128
_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Profile:
    """The default headers of the models that match a glob."""

    glob: str
    headers: Mapping[str, str]


class Profiles:
    """The profiles of a file; the first whose glob matches a model applies."""

    def __init__(self, profiles: tuple[Profile, ...]) -> None:
        self._profiles = profiles
        self._cached = lru_cache(maxsize=1024)(self._find)

    def of(self, model: str) -> Mapping[str, str]:
        """Return the default headers of a model."""
        short = len(model) <= _MAX_CACHED_MODEL_LENGTH
        return (self._cached if short else self._find)(model)

    def __reduce__(self) -> tuple[type["Profiles"], tuple[tuple[Profile, ...]]]:
        """Leave out what is remembered."""
        return Profiles, (self._profiles,)

    @property
    def cached(self) -> int:
        """The number of models that are cached."""
        return self._cached.cache_info().currsize

    def _find(self, model: str) -> Mapping[str, str]:
        matching = (p.headers for p in self._profiles if fnmatch.fnmatchcase(model, p.glob))
        return next(matching, _NOTHING)


class _Entry(BaseModel):
    """An entry of the file, with fields of any type."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    model: str = Field(min_length=1, max_length=MAX_GLOB_LENGTH)


PROFILE_FIELDS = tuple(EmulationHeaders.model_fields)
_ENTRY = create_model("Entry", __base__=_Entry, **dict.fromkeys(PROFILE_FIELDS, (Any, None)))  # type: ignore[call-overload]
_FILE: TypeAdapter[list[_Entry]] = TypeAdapter(
    Annotated[list[_ENTRY], Field(max_length=MAX_PROFILES)]  # type: ignore[arg-type]
)


def read_profiles(path: Path, settings: Settings, traces: Mapping[str, Floats]) -> Profiles:
    """Read a file of profiles.

    Args:
        path: The file.
        settings: The limits on the length of an answer.
        traces: The gaps of each trace, by name.

    Raises:
        ConfigError: The file is invalid.
    """
    document = Document(path, _FILE)
    profiles = []
    for index, entry in enumerate(document.content):
        headers: dict[str, str] = {}
        for name in filter(entry.model_fields_set.__contains__, PROFILE_FIELDS):
            try:
                headers[HEADERS_BY_FIELD[name]] = _checked(name, getattr(entry, name), traces)
            except ValueError as error:
                raise document.error((index, name), str(error)) from None
        checked = check_headers(headers)
        length = settings.output_length if checked.output_length is None else checked.output_length
        tokens, most = length + (checked.reasoning_length or 0), settings.max_output_length
        if tokens > most:
            raise document.error((index,), f"expected at most {most} tokens, but got {tokens}")
        profiles.append(Profile(entry.model, headers))
    return Profiles(tuple(profiles))


def _checked(field: str, value: object, traces: Mapping[str, Floats]) -> str:
    """Return the value of a field as its header's text.

    Raises:
        ValueError: The value is invalid.
    """
    text = header_text(value)
    if text is None:
        raise ValueError("expected one of a number, string or boolean")
    header = HEADERS_BY_FIELD[field]
    try:
        check_headers({header: text})
    except APIError as error:
        message = placed(error, {header: field}).body.message
        problem = message.removeprefix(f"Invalid '{field}': ").removesuffix(" instead.")
        raise ValueError(problem) from None
    if field.endswith("_jitter"):
        Jitter.parse(text, traces)
    return text
