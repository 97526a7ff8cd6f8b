"""Unions whose errors name what the client sent, and not pydantic's tags.

Pydantic puts the tag of the chosen variant into an error's location. The tags are written
<like this>, so that error_words.py can tell them from the names of fields.
"""

from pydantic import Discriminator


def variant(key: str, *supported: str) -> Discriminator:
    """Choose the variant named by `key`, the way messages are told apart by ``role``."""

    def tag(value: object) -> str | None:
        name = value.get(key) if isinstance(value, dict) else getattr(value, key, None)
        return f"<{name}>" if name in supported else None

    return Discriminator(
        tag,
        custom_error_type="unknown_variant",
        custom_error_message="unknown variant",
        custom_error_context={"key": key, "supported": ",".join(supported)},
    )


def json_type(expected: str, **tags: type) -> Discriminator:
    """Choose the variant by the value's JSON type; `expected` names the types for the error."""

    def tag(value: object) -> str | None:
        return next((f"<{name}>" for name, type_ in tags.items() if isinstance(value, type_)), None)

    return Discriminator(
        tag,
        custom_error_type="wrong_json_type",
        custom_error_message="wrong JSON type",
        custom_error_context={"expected": expected},
    )
