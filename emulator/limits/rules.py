"""limits.yaml and keys.yaml: the limits of each key and model."""

import fnmatch
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from emulator.limits.buckets import DAY, MINUTE, Bucket, Kind, Limits
from emulator.limits.keys import Keys
from emulator.settings import MAX_RATE_LIMIT
from emulator.yaml_files import Document

MAX_LINES = 1000
MAX_KEYS = 10_000
MAX_NAME_LENGTH = 64

_Limit = Annotated[int | None, Field(ge=1, le=MAX_RATE_LIMIT, strict=True)]
_Glob = Annotated[str, Field(min_length=1, max_length=256)]


class Figures(BaseModel):
    """Limits on requests and tokens; null means none, and a missing one is looked up elsewhere."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rpm: _Limit = Field(None, description="requests a minute")
    rpd: _Limit = Field(None, description="requests a day")
    tpm: _Limit = Field(None, description="tokens a minute")
    tpd: _Limit = Field(None, description="tokens a day")

    @model_validator(mode="after")
    def _one_window_each(self) -> Self:
        for minute, day in (("rpm", "rpd"), ("tpm", "tpd")):
            if {minute, day} <= self.model_fields_set:
                raise ValueError(f"expected {minute} or {day}, but got both")
        return self

    def says(self, kind: Kind) -> bool:
        """Return whether this says something about requests or tokens, be it a limit or null."""
        return not self.model_fields_set.isdisjoint((f"{kind[0]}pm", f"{kind[0]}pd"))

    def bucket(self, kind: Kind) -> Bucket | None:
        """Return the bucket of requests or tokens, None without a limit."""
        for letter, window in (("m", MINUTE), ("d", DAY)):
            limit: int | None = getattr(self, f"{kind[0]}p{letter}")
            if limit is not None:
                return Bucket(kind, limit, window)
        return None


class Line(Figures):
    """Limits for the models and the keys that match the globs."""

    model: _Glob = "*"
    key: _Glob | None = None

    def matches(self, name: str | None, model: str) -> bool:
        """Return whether a key with this name and this model match."""
        if not fnmatch.fnmatchcase(model, self.model):
            return False
        return self.key is None or (name is not None and fnmatch.fnmatchcase(name, self.key))


class LimitsFile(BaseModel):
    """The content of limits.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default: Figures = Figures()
    limits: Annotated[tuple[Line, ...], Field(max_length=MAX_LINES)] = ()


class Key(Figures):
    """A name, its key or the key's sha256, and limits for all models."""

    name: str = Field(pattern=rf"^[A-Za-z0-9._-]{{1,{MAX_NAME_LENGTH}}}$")
    key: str | None = Field(None, min_length=1, max_length=1024, pattern=r"^[!-~]+$", repr=False)
    sha256: str | None = Field(None, pattern=r"^[0-9a-fA-F]{64}$", repr=False)

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if (self.key is None) == (self.sha256 is None):
            raise ValueError("expected key or sha256, and not both")
        return self

    @property
    def digest(self) -> bytes:
        """The sha256 of the key."""
        if self.key is not None:
            return hashlib.sha256(self.key.encode()).digest()
        return bytes.fromhex(self.sha256 or "")


class KeysFile(BaseModel):
    """The content of keys.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: Annotated[tuple[Key, ...], Field(min_length=1, max_length=MAX_KEYS)]


class Rules:
    """The limits of every key and model.

    Requests and tokens are looked up separately, in this order: the lines of limits.yaml for the
    key, the limits in keys.yaml, the lines for any key, the default, the settings rpm and tpm.
    """

    def __init__(self, settings: Figures, limits: LimitsFile, keys: Sequence[Key] = ()) -> None:
        self.named = [line for line in limits.limits if line.key is not None]
        self.unnamed = [line for line in limits.limits if line.key is None]
        self.own: Mapping[str, Figures] = {key.name: key for key in keys}
        self.defaults = (limits.default, settings)

    def limits_of(self, name: str | None, model: str) -> Limits:
        """Return the limits of a model for the key with a name, or for any other key."""
        sources = [line for line in self.named if line.matches(name, model)]
        ordered: list[Figures] = [*sources]
        if name is not None and name in self.own:
            ordered.append(self.own[name])
        ordered += [line for line in self.unnamed if line.matches(name, model)]
        ordered += self.defaults
        return Limits(_first("requests", ordered), _first("tokens", ordered))


def _first(kind: Kind, sources: Sequence[Figures]) -> Bucket | None:
    source = next((source for source in sources if source.says(kind)), None)
    return source.bucket(kind) if source else None


# --------------------------------------------------------------------------------------
# Reading the files
# --------------------------------------------------------------------------------------


def read_keys(path: Path) -> tuple[KeysFile, Keys]:
    """Read keys.yaml.

    Raises:
        ConfigError: The file is invalid; the message holds no key.
    """
    document = Document(path, KeysFile, secret={"key", "sha256"})
    content = document.content
    names: dict[str, int] = {}
    digests: dict[bytes, str] = {}
    for index, key in enumerate(content.keys):
        if key.name in names:
            raise document.error(("keys", index, "name"), f"the name {key.name} is there twice")
        if key.digest in digests:
            raise document.error(
                ("keys", index), f"{key.name} has the same key as {digests[key.digest]}"
            )
        names[key.name] = index
        digests[key.digest] = key.name
    return content, Keys(digests)


def read_limits(
    path: Path, models: Sequence[str], names: Sequence[str] | None = None
) -> LimitsFile:
    """Read limits.yaml, given the known models, and the names of keys if there is a keys file.

    Raises:
        ConfigError: The file is invalid, or a glob matches nothing.
    """
    document = Document(path, LimitsFile)
    if found := useless_glob(document.content, models, names):
        raise document.error(*found)
    return document.content


def useless_glob(
    content: LimitsFile, models: Sequence[str], names: Sequence[str] | None
) -> tuple[tuple[int | str, ...], str] | None:
    """Return the place of a glob that matches no model or no key, and what is wrong with it."""
    for index, line in enumerate(content.limits):
        place = ("limits", index, "key")
        if not fnmatch.filter(models, line.model):
            problem = (
                f"{line.model!r} matches no model. Known models: {_listed(models)}. "
                "The setting 'models' makes others known."
            )
            return ("limits", index, "model"), problem
        if line.key is not None and names is None:
            return place, "keys have names only with the setting 'api_keys'"
        if line.key is not None and not fnmatch.filter(names or (), line.key):
            return place, f"{line.key!r} matches no key. Known names: {_listed(names or ())}."
    return None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
