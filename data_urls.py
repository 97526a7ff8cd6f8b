"""Shortens the base64 pictures of a large request before its JSON is parsed.

The parser and base64 hold Python's interpreter lock for tens of milliseconds over 20 MB, and all
streams of the worker wait. Here every step is short, so that a thread gives way between them.
"""

import binascii
import re

# A picture's size stands near its start; a JPEG may have a preview and colour profiles before it.
KEPT = 1 << 20
STEP = 1 << 16

_MARK = b";base64,"
_MAX_HEAD = 128
_HEAD = re.compile(rb'"url"\s{0,64}:\s{0,64}"data:[^"\\]{0,64}\Z', re.IGNORECASE)


def shorten_pictures(body: bytearray) -> bytes | bytearray:
    """Cut each base64 data URL under a key ``url`` after 1 MiB of its base64 text.

    What is cut is checked to be base64. A URL that is not, or is not ended, is left as it is, so
    that it gets the same error as a short one.
    """
    parts: list[memoryview] = []
    view, copied, at = memoryview(body), 0, 0
    while (mark := _find(body, _MARK, at)) >= 0:
        at = start = mark + len(_MARK)
        if not _HEAD.search(body[max(mark - _MAX_HEAD, 0) : mark]):
            continue
        end = _find(body, b'"', start)
        if end - start > KEPT and _is_base64(view[start:end]):
            parts.append(view[copied : start + KEPT])
            at = copied = end
    return b"".join([*parts, view[copied:]]) if parts else body


def _find(body: bytearray, wanted: bytes, start: int) -> int:
    """Return where `wanted` is next, -1 if it is not there."""
    for at in range(start, len(body), STEP):
        if (found := body.find(wanted, at, at + STEP + len(wanted) - 1)) >= 0:
            return found
    return -1


def _is_base64(text: memoryview) -> bool:
    """Tell whether a text is base64 with padding at its end alone."""
    try:
        sizes = [
            len(binascii.a2b_base64(text[at : at + STEP], strict_mode=True))
            for at in range(0, len(text), STEP)
        ]
    except binascii.Error:
        return False
    return all(size == STEP // 4 * 3 for size in sizes[:-1])
