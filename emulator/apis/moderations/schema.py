"""The body of POST /v1/moderations, and its answer."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, Field, Tag, model_validator
from typing_extensions import TypeAliasType

from emulator.contract.bodies import ModelRequest, RequestModel
from emulator.contract.bounds import Members, ModelName, Text
from emulator.contract.errors import refusal
from emulator.contract.parts import ImageURL
from emulator.contract.unions import json_type, variant

DEFAULT_MODEL = "omni-moderation-latest"
OLD_MODELS = ("text-moderation-latest", "text-moderation-stable")
OLD_MODEL = "text-moderation-007"  # what both of them are
MODELS = (DEFAULT_MODEL, "omni-moderation-2024-09-26", *OLD_MODELS)
MAX_INPUTS = 2048
MAX_IMAGES = 1

InputType = Literal["text", "image"]


class TextInput(RequestModel):
    """A text."""

    type: Literal["text"]
    text: Text


class ImageInput(RequestModel):
    """A picture, which is not looked at."""

    type: Literal["image_url"]
    image_url: ImageURL


InputPart = TypeAliasType(
    "InputPart",
    Annotated[
        Annotated[TextInput, Tag("<text>")] | Annotated[ImageInput, Tag("<image_url>")],
        variant("type", "text", "image_url"),
    ],
)

Input = TypeAliasType(
    "Input",
    Annotated[
        Annotated[Text, Tag("<string>")] | Annotated[InputPart, Tag("<object>")],
        json_type("one of a string or object", string=str, object=dict),
    ],
)


class Moderated(NamedTuple):
    """What one result is about: texts, and whether there is a picture beside them."""

    texts: Sequence[str]
    has_image: bool = False

    @property
    def types(self) -> tuple[InputType, ...]:
        """The types of input that there are."""
        kinds: tuple[tuple[InputType, bool], ...]
        kinds = (("text", bool(self.texts)), ("image", self.has_image))
        return tuple(kind for kind, is_there in kinds if is_there)


def _or_default(model: object) -> object:
    return DEFAULT_MODEL if model is None else model


class ModerationRequest(ModelRequest):
    """The body of POST /v1/moderations."""

    model: Annotated[ModelName, BeforeValidator(_or_default)] = DEFAULT_MODEL
    input: Annotated[
        Annotated[Text, Tag("<string>")]
        | Annotated[list[Input], Members(MAX_INPUTS, least=1), Tag("<array>")],
        json_type("one of a string or array of strings or objects", string=str, array=list),
    ]

    @property
    def served_model(self) -> str | None:
        """The model that is asked for; OpenAI's own are always there."""
        return None if self.model in MODELS else self.model

    @property
    def is_old(self) -> bool:
        """Whether the model is one of those for texts alone, with fewer categories."""
        return self.model.startswith("text-moderation")

    @property
    def results(self) -> int:
        """How many results there are: one for each text, or for all parts together."""
        return len(self.input) if self._has_several else 1

    @property
    def _has_several(self) -> bool:
        return isinstance(self.input, list) and isinstance(self.input[0], str)

    @property
    def moderated(self) -> Iterator[Moderated]:
        """What each result is about."""
        if isinstance(self.input, str):
            yield Moderated([self.input])
        elif self._has_several:
            yield from (Moderated([text]) for text in self.input if isinstance(text, str))
        else:
            yield Moderated([*_texts(self.input)], any(map(_is_image, self.input)))

    @model_validator(mode="after")
    def _inputs_fit(self) -> Self:
        if isinstance(self.input, str):
            return self
        kinds = {isinstance(part, str) for part in self.input}
        if len(kinds) > 1:
            raise refusal(
                "Invalid 'input': expected an array of strings or of objects, but got one of both "
                "instead.",
                "invalid_type",
                "input",
            )
        if self.is_old and kinds == {False}:
            raise refusal(
                f"Invalid 'input': expected a string or array of strings, which is all that "
                f"{self.model} takes, but got an array of objects instead.",
                "invalid_type",
                "input",
            )
        images = sum(map(_is_image, self.input))
        if images > MAX_IMAGES:
            raise refusal(
                f"Number of images ({images}) exceeds maximum of {MAX_IMAGES}",
                "too_many_images",
                "input",
            )
        return self


def _is_image(part: Any) -> bool:  # noqa: ANN401 - an Input
    return isinstance(part, ImageInput)


def _texts(parts: Sequence[Any]) -> Iterator[str]:
    return (part.text for part in parts if isinstance(part, TextInput))


class Moderation(BaseModel):
    """The result of one input; those of older models do not tell the types of input."""

    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[InputType]] | None = Field(
        None, exclude_if=lambda types: types is None
    )


class ModerationList(BaseModel):
    """The answer to a request for moderations."""

    id: str
    model: str
    results: list[Moderation]
