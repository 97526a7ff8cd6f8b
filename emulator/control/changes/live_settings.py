"""The settings that can change while the server runs, as JSON: read, changed and checked."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from pydantic_core import to_json

from emulator.control.changes.merging import merged
from emulator.control.changes.refusals import first_fault, refused_at
from emulator.engine.config import EngineConfig
from emulator.limits.gate import LimitFiles
from emulator.limits.rules import LimitsFile, useless_glob
from emulator.settings import SECRETS, Settings, is_live
from emulator.state import State
from emulator.timing.jitter import Jitter

_JSON = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _as_json(model: type[BaseModel], name: str) -> tuple[Any, Any]:
    """Return a field of a model for JSON: strict, and without what reads it from a text."""
    field = model.model_fields[name]
    checks = [check for check in field.metadata if not isinstance(check, BeforeValidator)]
    kind = Annotated[field.annotation, *checks] if checks else field.annotation
    return kind, Field(... if field.is_required() else field.default, description=field.description)


def _live(model: type[BaseModel]) -> list[str]:
    return [name for name, field in model.model_fields.items() if is_live(field)]


def _model(name: str, doc: str, fields: Mapping[str, tuple[Any, Any]]) -> Any:  # noqa: ANN401
    return create_model(name, __config__=_JSON, __doc__=doc, **fields)  # type: ignore[call-overload]


EngineSettings: type[BaseModel] = _model(
    "EngineSettings",
    "The times and bounds of an engine, which can change while it runs.",
    {name: _as_json(EngineConfig, name) for name in _live(EngineConfig)},
)
# A file or a preset at the start, and what they hold from then on.
_AS_DATA: Mapping[str, tuple[Any, Any]] = {
    "limits": (LimitsFile | None, Field(None, description="what a file of limits holds")),
    "engine": (
        EngineSettings | None,
        Field(None, description="times and bounds of the engine, on a server that has one"),
    ),
}
LiveSettings: type[BaseModel] = _model(
    "LiveSettings",
    "The settings that can change while the server runs.",
    {name: _AS_DATA.get(name) or _as_json(Settings, name) for name in _live(Settings)},
)


def in_force(state: State) -> dict[str, Any]:
    """Return the settings that can change, as they are, as JSON has them."""
    settings, engine, limits = state.settings, state.engine, state.files.limits
    data = settings.model_dump(mode="json", include={*LiveSettings.model_fields} - {*_AS_DATA})
    names = {*EngineSettings.model_fields}
    data["limits"] = limits and limits.model_dump(mode="json", exclude_unset=True)
    data["engine"] = engine and engine.model_dump(mode="json", include=names)
    return data


def fixed(state: State) -> dict[str, Any]:
    """Return the settings that cannot change, without what nobody is to see."""
    hidden = {*LiveSettings.model_fields} - {*_AS_DATA} | SECRETS
    data = state.settings.model_dump(mode="json", exclude=hidden)
    return {f"{name}_file" if name == "limits" else name: value for name, value in data.items()}


def changed_settings(start: State, base: Mapping[str, Any], overlay: Mapping[str, Any]) -> State:
    """Return the start's state with a merge patch over its settings; its policy is the start's.

    Args:
        start: The state of the start.
        base: What is `in_force` in it.
        overlay: The patch.

    Raises:
        APIError: The patch is not good; it names the field by its path.
    """
    if not overlay:
        return start
    for name in overlay:
        if name in Settings.model_fields and name not in LiveSettings.model_fields:
            raise refused_at((name,), "expected a setting that can change while the server runs")
    if "engine" in overlay and start.engine is None:
        raise refused_at(
            ("engine",), "expected a server that was started with the setting 'engine'"
        )
    data = merged(base, overlay)
    try:
        checked = LiveSettings.model_validate_json(to_json(data))
    except ValidationError as error:
        raise first_fault(error, LiveSettings) from None
    given = {name: value for name, value in checked if name not in _AS_DATA}
    try:
        settings = Settings(**{**dict(start.settings), **given})
    except ValidationError as error:
        raise first_fault(error, LiveSettings) from None
    _check_jitter(start, settings)
    files = _changed_limits(start, settings, checked.limits)  # type: ignore[attr-defined]
    engine = _changed_engine(start, checked.engine)  # type: ignore[attr-defined]
    return replace(start, settings=settings, files=files, engine=engine)


def _check_jitter(start: State, settings: Settings) -> None:
    for name in ("ttft_jitter", "itl_jitter"):
        text = getattr(settings, name)
        try:
            if text is not None:
                Jitter.parse(text, start.traces)
        except ValueError as error:
            raise refused_at((name,), str(error)) from None


def _changed_limits(start: State, settings: Settings, limits: LimitsFile | None) -> LimitFiles:
    files = start.files
    if limits is not None and (found := useless_glob(limits, settings.models, files.names)):
        place, problem = found
        raise refused_at(("limits", *place), problem)
    return files if limits == files.limits else files.with_limits(limits)


def _changed_engine(start: State, figures: BaseModel | None) -> EngineConfig | None:
    if start.engine is None or figures is None:
        return start.engine
    try:
        return EngineConfig.model_validate({**dict(start.engine), **dict(figures)})
    except ValidationError as error:
        raise first_fault(error, EngineConfig, lambda place: ("engine", *place)) from None
