"""The results of moderations as JSON: scores that follow from the texts, and what is flagged."""

from functools import lru_cache
from hashlib import blake2b

from emulator.apis.moderations.schema import InputType, Moderated, Moderation, ModerationRequest
from emulator.contract.moderation import CATEGORIES, OF_IMAGES, OLD_CATEGORIES
from emulator.rendering.frames import Frame

_SLOT = -1.0  # stands where a score is to go
_LEAST_FLAGGED = 0.8


def categories_of(*, is_old: bool) -> tuple[str, ...]:
    """Return the categories that a model knows."""
    return OLD_CATEGORIES if is_old else CATEGORIES


def result_json(request: ModerationRequest, moderated: Moderated, flagged: frozenset[str]) -> str:
    """Return the result of one input.

    Its scores follow from the model and the texts: close to 1 where a category is flagged, else
    between 1e-6 and 1e-3.
    """
    names = categories_of(is_old=request.is_old)
    text = "\0".join([request.model, *moderated.texts]).encode("utf-8", "replace")
    digest = blake2b(text, digest_size=2 * len(names)).digest()
    scores = []
    for at, name in enumerate(names):
        chance = int.from_bytes(digest[2 * at : 2 * at + 2], "big") / 0xFFFF
        scores.append(
            f"{_LEAST_FLAGGED + 0.19 * chance:.6f}"
            if name in flagged
            else f"{10 ** (-3 - 3 * chance):.9f}"
        )
    return _frame(request.is_old, flagged, moderated.types).filled(*scores)


@lru_cache(64)
def _frame(is_old: bool, flagged: frozenset[str], types: tuple[InputType, ...]) -> Frame:
    """Return a result but for its scores."""
    names = categories_of(is_old=is_old)
    result = Moderation(
        flagged=bool(flagged),
        categories={name: name in flagged for name in names},
        category_scores=dict.fromkeys(names, _SLOT),
        category_applied_input_types=None
        if is_old
        else {name: [t for t in types if t == "text" or name in OF_IMAGES] for name in names},
    )
    return Frame(result.model_dump_json(), *[f"{_SLOT}"] * len(names))
