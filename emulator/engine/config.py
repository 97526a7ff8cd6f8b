"""The configuration of an engine, from a preset in engines/ or a YAML file."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from emulator.settings import ConfigError, live
from emulator.yaml_files import Document

PRESETS = Path(__file__).parents[2] / "engines"
FILE_SUFFIXES = (".yaml", ".yml")

MAX_STEP_MS = 60_000
MAX_MS_PER_TOKEN = 1_000
MAX_MS_PER_TOKEN_SQUARED = 1
MAX_STEP_CV = 10


class EngineConfig(BaseModel):
    """The configuration of an engine.

    A step takes ``step_base_ms``, plus ``step_per_prefill_token_ms`` for each prompt token that it
    computes, ``step_per_sequence_ms`` for each of its sequences, and ``step_per_context_token_ms``
    for each token, prompt or generated, of the sequences that decode. ``max_model_len`` is the size
    of the cache where it is not given.

    A chunk of n tokens after p takes ``step_per_prefill_token_squared_ms`` * ((p + n)^2 - p^2) on
    top, so that a prompt takes the same in one chunk as in many. Of more than ``batch_bend``
    sequences each further one takes ``step_per_sequence_above_ms``. A step's time is multiplied by
    a lognormal factor with the mean 1 and the coefficient of variation ``step_cv``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    source: str = Field(min_length=1, description="where the figures come from")
    step_base_ms: float = live(ge=0, le=MAX_STEP_MS)
    step_per_prefill_token_ms: float = live(0, ge=0, le=MAX_MS_PER_TOKEN)
    step_per_sequence_ms: float = live(0, ge=0, le=MAX_MS_PER_TOKEN)
    step_per_context_token_ms: float = live(0, ge=0, le=MAX_MS_PER_TOKEN)
    step_per_prefill_token_squared_ms: float = live(0, ge=0, le=MAX_MS_PER_TOKEN_SQUARED)
    batch_bend: int | None = live(None, ge=1, le=65_536, description="sequences up to the bend")
    step_per_sequence_above_ms: float | None = live(None, ge=0, le=MAX_MS_PER_TOKEN)
    step_cv: float = live(0, ge=0, le=MAX_STEP_CV, description="spread of the time of a step")
    request_overhead_ms: float = live(
        0, ge=0, le=MAX_STEP_MS, description="from a request's arrival until it can be admitted"
    )
    max_num_seqs: int = live(ge=1, le=65_536, description="most sequences that run")
    max_num_batched_tokens: int = live(ge=1, le=1_048_576, description="most tokens of a step")
    kv_blocks: int = Field(ge=1, le=100_000_000, description="blocks of the cache")
    block_size: int = Field(ge=1, le=4096, description="tokens of a block")
    prefix_caching: bool = Field(False, description="whether full blocks of prompts stay")
    max_model_len: int = Field(
        0, ge=0, description="most tokens of a prompt with its answer; 0: as the cache holds"
    )
    max_waiting: int = live(10_000, ge=1, le=1_000_000, description="most sequences that wait")
    overload_status: Literal[429, 503] = live(503, description="of the answer beyond that")

    @model_validator(mode="before")
    @classmethod
    def _cache_bounds_context(cls, data: Any) -> Any:  # noqa: ANN401 - anything may be given
        """Let a sequence be as long as the cache where nothing else is said of it."""
        if not isinstance(data, dict) or data.get("max_model_len"):
            return data
        blocks, size = data.get("kv_blocks"), data.get("block_size")
        if type(blocks) is not int or type(size) is not int:
            return data  # what is wrong with them is told
        return {**data, "max_model_len": blocks * size}

    @model_validator(mode="after")
    def _cache_holds_context(self) -> Self:
        most = self.kv_blocks * self.block_size
        if self.max_model_len > most:
            raise ValueError(
                f"max_model_len must be at most kv_blocks * block_size ({most}), but is "
                f"{self.max_model_len}"
            )
        return self

    @model_validator(mode="after")
    def _steps_take_time(self) -> Self:
        # Every step has a sequence, and prefills a token or decodes one.
        each = self.step_base_ms + self.step_per_sequence_ms
        prefill = self.step_per_prefill_token_ms + self.step_per_prefill_token_squared_ms
        if not each and not (prefill and self.step_per_context_token_ms):
            raise ValueError(
                "a step would take no time: one of step_base_ms and step_per_sequence_ms must be "
                "above 0, or both step_per_prefill_token_ms and step_per_context_token_ms"
            )
        return self

    @model_validator(mode="after")
    def _bend_is_whole(self) -> Self:
        if (self.batch_bend is None) != (self.step_per_sequence_above_ms is None):
            raise ValueError(
                "batch_bend and step_per_sequence_above_ms must be given together: the one says "
                "where the cost of a sequence changes, the other to what"
            )
        return self

    def step_s(
        self, prefill_tokens: int, sequences: int, context_tokens: int, prefill_squares: int = 0
    ) -> float:
        """Return the mean duration of a step, in seconds.

        Args:
            prefill_tokens: The prompt tokens that it computes.
            sequences: All sequences in it.
            context_tokens: The prompt and generated tokens of those that decode.
            prefill_squares: The sum of (p + n)^2 - p^2 over its chunks of n tokens after p.

        >>> paper = load_engine("paper")
        >>> paper.step_s(prefill_tokens=1000, sequences=1, context_tokens=0)
        0.061
        """
        return (
            self.step_base_ms
            + self.step_per_prefill_token_ms * prefill_tokens
            + self.step_per_prefill_token_squared_ms * prefill_squares
            + self._batch_ms(sequences)
            + self.step_per_context_token_ms * context_tokens
        ) / 1000

    def _batch_ms(self, sequences: int) -> float:
        """Return what the sequences of a step take: the slope of a line that bends once."""
        above = 0 if self.batch_bend is None else max(sequences - self.batch_bend, 0)
        return self.step_per_sequence_ms * (sequences - above) + (
            (self.step_per_sequence_above_ms or 0) * above
        )


def presets() -> list[str]:
    """Return the names of the bundled engines."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_engine(name: str) -> EngineConfig:
    """Return the engine of a preset, or of a file whose path ends in .yaml or .yml.

    Raises:
        ConfigError: There is no such preset or file, or the file is invalid.
    """
    is_file = name.endswith(FILE_SUFFIXES)
    path = Path(name) if is_file else PRESETS / f"{name}.yaml"
    if not is_file and name not in presets():
        known = ", ".join(presets())
        raise ConfigError(
            f"expected one of {known}, or a path that ends in .yaml, but got {name!r}"
        )
    return Document(path, EngineConfig).content
