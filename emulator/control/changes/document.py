"""The document of changes to the initial state, which all workers and hosts share."""

import struct
from typing import NamedTuple

# Three numbers, and how long each text is.
_HEAD = struct.Struct("<QQQ4I")
# Settings, rules and schedule come in bodies of at most 1 MB, to which numbers written in full add.
MAX_DOCUMENT_BYTES = 8_000_000


class Changes(NamedTuple):
    """All that was changed since the start. Each text is JSON, kept as it was checked.

    Args:
        revision: How many changes there were.
        mark: Drawn for each change: two hosts may make different changes of one revision while
            they cannot see each other.
        progress: How many steps of the schedule are done.
        settings: A merge patch over the settings of the start.
        rules: The rules in force, empty for those of the start.
        schedule: What is to change by itself, empty for nothing.
        resets: The revisions at which things were set back, by what and by scope.
    """

    revision: int = 0
    mark: int = 0
    progress: int = 0
    settings: bytes = b"{}"
    rules: bytes = b""
    schedule: bytes = b""
    resets: bytes = b"{}"

    def packed(self) -> bytes:
        """Return these as one document."""
        numbers, texts = self[:3], self[3:]
        return _HEAD.pack(*numbers, *map(len, texts)) + b"".join(texts)

    @classmethod
    def unpacked(cls, document: bytes) -> "Changes":
        """Return what a document says; none has no changes.

        Raises:
            ValueError: It is none of ours.
        """
        if not document:
            return NOTHING
        try:
            revision, mark, progress, *lengths = _HEAD.unpack_from(document)
        except struct.error:
            raise ValueError("expected a document of changes, but got something shorter") from None
        at, texts = _HEAD.size, []
        for length in lengths:
            texts.append(document[at : at + length])
            at += length
        if at != len(document):
            raise ValueError(f"expected a document of {at} bytes, but got {len(document)}")
        return cls(revision, mark, progress, *texts)


NOTHING = Changes()
