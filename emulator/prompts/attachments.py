"""Images, audio and files in base64.

Parsing and decoding 20 MB at once would hold the GIL for tens of milliseconds, and delay all
streams of the worker. Every step here is short, so that threads can switch in between.
"""

import binascii
import io
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

import imagesize

# The first bytes of an image file, whatever type its URL has.
_SIGNATURES = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP", re.DOTALL)

IMAGE_TYPES = ("image/png", "image/jpeg", "image/jpg", "image/gif", "image/webp")

# An image's size is near its start; in a JPEG a preview and colour profiles may precede it.
KEPT = 1 << 20
STEP = 1 << 16

_DATA_URL = re.compile(r"data:([^;,]{0,128})(;base64)?,", re.IGNORECASE)
_ATTACHMENT = re.compile(
    rb'(?:"(?:image_url|input_audio|file)"\s{0,64}:\s{0,64}\{[^{}]{0,512}?'
    rb'"(?:url|data|file_data)"|"(?:image_url|file_data)")'
    rb'\s{0,64}:\s{0,64}"(?:data:[^"\\,]{0,128};base64,)?',
    re.IGNORECASE,
)
_MAX_HEAD = 1024


class AttachmentError(ValueError):
    """An attachment is invalid; ``code`` is OpenAI's."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class ImageSource:
    """The source of an image, and its size in pixels if it is known.

    The image itself is not kept.
    """

    width: int | None = None
    height: int | None = None

    @classmethod
    def parse(cls, url: str) -> "ImageSource":
        """Check an image URL; the size of a base64 image is read from its file header.

        Raises:
            AttachmentError: Not base64, not an image of a supported type, or a scheme other than
                http, https and data.
        """
        if url[:5].lower() == "data:":
            return cls._parse_data_url(url)
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise AttachmentError(
                "Invalid image URL. Expected an http(s) URL or a base64 data URL "
                f"(data:image/png;base64,...), but got '{_shorten(url)}' instead.",
                "invalid_image_url",
            )
        return cls()

    @classmethod
    def _parse_data_url(cls, url: str) -> "ImageSource":
        head = _DATA_URL.match(url)
        if head is None or not head[2]:
            raise AttachmentError(
                "Invalid image data URL. Expected 'data:image/png;base64,' and base64 data, "
                f"but got '{_shorten(url)}' instead.",
                "invalid_image_url",
            )
        if head[1].lower() not in IMAGE_TYPES:
            raise AttachmentError(
                f"Invalid image type. Expected one of {', '.join(IMAGE_TYPES)}, "
                f"but got '{_shorten(head[1])}' instead.",
                "invalid_image_format",
            )
        try:
            data = _decode_start(url, head.end())
        except ValueError as error:
            raise AttachmentError(
                f"Invalid base64 image data. Expected base64 text, but got: {error}.",
                "invalid_base64",
            ) from None
        width, height = _size(data)
        if width <= 0 or height <= 0:
            raise AttachmentError(
                "Invalid image data. Expected a PNG, JPEG, GIF or WebP file, "
                f"but its size in pixels cannot be read from its first {len(data)} bytes.",
                "image_parse_error",
            )
        return cls(width, height)


def _size(data: bytes) -> tuple[int, int]:
    """Return the width and height of an image file, -1 if they are unknown."""
    if not _SIGNATURES.match(data):
        return -1, -1  # imagesize reads other formats too, some without pixels
    width, height = imagesize.get(io.BytesIO(data))
    return int(width), int(height)


def shorten_attachments(body: bytes | bytearray) -> bytes | bytearray:
    """Cut the base64 of each large attachment in a request's JSON after 1 MiB.

    Attachments are the strings under the keys ``url``, ``data`` or ``file_data`` of an
    ``image_url``, ``input_audio`` or ``file``, and under the keys ``image_url`` or ``file_data`` of
    a part of a Responses request, with or without the head of a data URL. Invalid base64 is left
    as it is, so that it gets the same error as a short attachment.
    """
    parts: list[memoryview] = []
    view, copied, at = memoryview(body), 0, 0
    while head := _next_head(body, at):
        at = start = head.end()
        end = _find_quote(body, start)
        if end - start > KEPT and _is_base64(view[start:end]):
            parts.append(view[copied : start + KEPT])
            at = copied = end
    return b"".join([*parts, view[copied:]]) if parts else body


def _next_head(body: bytes | bytearray, start: int) -> re.Match[bytes] | None:
    """Find what precedes the base64 of the next attachment."""
    for at in range(start, len(body), STEP):
        found = _ATTACHMENT.search(body, at, at + STEP + _MAX_HEAD)
        if found and found.start() < at + STEP:
            return found
    return None


def _find_quote(body: bytes | bytearray, start: int) -> int:
    """Return the index of the next quotation mark, -1 if there is none."""
    for at in range(start, len(body), STEP):
        if (found := body.find(b'"', at, at + STEP)) >= 0:
            return found
    return -1


def _is_base64(text: memoryview) -> bool:
    try:
        _decode_start(text, 0)
    except ValueError:
        return False
    return True


def _decode_start(text: str | memoryview, start: int) -> bytes:
    """Check that `text` is base64 from `start` on, and return its first 1 MiB decoded.

    Raises:
        ValueError: It is not, or has padding before its end.
    """
    kept = b""
    for at in range(start, len(text), STEP):
        data = binascii.a2b_base64(text[at : at + STEP], strict_mode=True)
        if len(data) < STEP // 4 * 3 and at + STEP < len(text):
            raise ValueError("Excess data after padding")
        if at - start < KEPT:
            kept += data
    return kept


def _shorten(text: str, limit: int = 64) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."
