"""The schema that the messages of a request ask the answer to satisfy."""

from collections.abc import Iterable
from typing import Any

from emulator.schema_instances import schema_in_text

MAX_SEARCHED = 2**20  # characters; they take up to a second


def schema_in_texts(texts: Iterable[str]) -> dict[str, Any] | None:
    """Return the JSON schema of an object in the first of `texts` that holds one.

    Only `MAX_SEARCHED` characters are searched in all, in each text the last.
    """
    left = MAX_SEARCHED
    for text in texts:
        schema = schema_in_text(text[-left:])
        if schema is not None:
            return schema
        left -= len(text)
        if left <= 0:
            return None
    return None
