"""Bodies in another form than plain JSON: their type, and gzip and zstd, decoded within a bound."""

import gzip
import io
import zlib
from collections.abc import Callable, Mapping
from typing import BinaryIO, Protocol

import zstandard

from emulator.contract.errors import APIError

# What is decoded at once takes under a millisecond, in bytes of the result.
MAX_BYTES_DECODED_INLINE = 131_072
# What zstd may keep of what it has decoded; its levels up to 19 take no more.
MAX_WINDOW = 1 << 23


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _zstd(source: BinaryIO) -> _Readable:
    return zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).stream_reader(
        source, read_across_frames=True
    )


def _gzip(source: BinaryIO) -> _Readable:
    return gzip.GzipFile(fileobj=source)


READERS: Mapping[str, Callable[[BinaryIO], _Readable]] = {"gzip": _gzip, "zstd": _zstd}
SUPPORTED = ", ".join([*READERS, "identity"])


def refuse_other_types(fields: Mapping[bytes, bytes]) -> None:
    """Refuse a body that is said to be no JSON; one of which nothing is said is taken for JSON.

    Raises:
        APIError: Its content type is another.
    """
    given = fields.get(b"content-type")
    if given is None or given.startswith(b"application/json"):
        return
    shown = given.decode("latin-1")[:128]
    kind = shown.partition(";")[0].strip().lower()
    if kind in ("application/json", "") or kind.endswith("+json"):
        return
    raise APIError(
        f"Unsupported content type: '{kind}'. This API method only accepts 'application/json' "
        f"requests, but you specified the header 'Content-Type: {shown}'. Please try again with a "
        "supported content type.",
        code="unsupported_content_type",
    )


def encoding_of(fields: Mapping[bytes, bytes]) -> str | None:
    """Return how a body is encoded, None if it is not.

    Raises:
        APIError: 415: the coding is none of those that are decoded.
    """
    given = fields.get(b"content-encoding")
    if given is None:
        return None
    name = given.decode("latin-1").strip().lower()
    if name in ("", "identity"):
        return None
    name = {"x-gzip": "gzip"}.get(name, name)
    if name not in READERS:
        raise APIError(
            f"Unsupported content encoding: '{name[:128]}'. Expected one of {SUPPORTED}.",
            param="Content-Encoding",
            code="unsupported_content_encoding",
            status=415,
        )
    return name


def decoded(body: bytes | bytearray, encoding: str, most: int) -> bytes | None:
    """Return a decoded body; None if it would have more than `most` bytes.

    Raises:
        APIError: It is not of this encoding.
    """
    try:
        content = READERS[encoding](io.BytesIO(body)).read(most + 1)
    except (OSError, EOFError, zlib.error, zstandard.ZstdError):
        raise APIError(
            f"We could not decode the body of your request. Expected {encoding}, as its "
            "Content-Encoding says.",
            param="Content-Encoding",
            code="invalid_content_encoding",
        ) from None
    return None if len(content) > most else content


def too_large(limit: int, size: int) -> APIError:
    """Refuse a body of so many bytes or more."""
    return APIError(
        f"The request body is too large. Expected at most {limit} bytes, but got {size} or more.",
        status=413,
        code="request_too_large",
    )
