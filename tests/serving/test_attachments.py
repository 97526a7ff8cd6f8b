"""Large pictures, sounds and files, which are cut before the JSON parser sees them."""

import base64
import json
import re
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.prompts.attachments import KEPT, STEP, shorten_attachments
from test_multimodal import data_url, image, png
from tests.support.wire import CHAT_PATH, chat, headers

BIG = "A" * (KEPT + 400_000)
LETTERS = re.compile(rb"[A-Za-z0-9+/=]+")


def body(url: str, key: str = "url", **more: object) -> bytearray:
    """Return the body of a request with a picture."""
    part = {"type": "image_url", "image_url": {key: url}}
    return bytearray(
        json.dumps(chat(messages=[{"role": "user", "content": [part]}], **more)).encode()
    )


def test_large_picture_is_cut() -> None:
    """A picture of over 1 MiB of base64 keeps its first MiB, and all around it stays."""
    whole = body(f"data:image/png;base64,{BIG}", user="after")
    cut = json.loads(shorten_attachments(whole))
    assert cut == json.loads(body(f"data:image/png;base64,{BIG[:KEPT]}", user="after"))


def test_several_pictures_are_cut() -> None:
    """Each of several pictures is cut."""
    parts = [image(f"data:image/{kind};base64,{BIG}") for kind in ("png", "jpeg", "gif")]
    whole = bytearray(json.dumps(parts).encode())
    urls = [part["image_url"]["url"] for part in json.loads(shorten_attachments(whole))]
    assert urls == [f"data:image/{kind};base64,{BIG[:KEPT]}" for kind in ("png", "jpeg", "gif")]


@pytest.mark.parametrize("gap", range(STEP - 300, STEP + 300, 7))
def test_head_is_found_wherever_it_stands(gap: int) -> None:
    """A picture is cut wherever its head falls between the steps of the search."""
    whole = body(f"data:image/png;base64,{BIG}", model="m" * gap)
    assert len(shorten_attachments(whole)) == len(whole) - len(BIG) + KEPT


@pytest.mark.parametrize(
    ("part", "start"),
    [
        ({"type": "input_audio", "input_audio": {"format": "wav", "data": BIG}}, ""),
        ({"input_audio": {"data": BIG, "format": "wav"}, "type": "input_audio"}, ""),
        ({"type": "file", "file": {"filename": "a.pdf", "file_data": BIG}}, ""),
        (
            {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{BIG}"}},
            "data:application/pdf;base64,",
        ),
    ],
)
def test_sounds_and_files_are_cut(part: dict[str, Any], start: str) -> None:
    """Sounds and files keep their first MiB, with or without the head of a data URL."""
    whole = bytearray(json.dumps([part, "after"]).encode())
    kept = json.dumps([part, "after"]).replace(start + BIG, start + BIG[:KEPT])
    assert shorten_attachments(whole) == kept.encode()


UNTOUCHED = {
    "small": body(f"data:image/png;base64,{BIG[:KEPT]}"),
    "text": bytearray(json.dumps(chat(f"data:image/png;base64,{BIG}")).encode()),
    "quoted": bytearray(json.dumps(chat(f'"url": "data:image/png;base64,{BIG}"')).encode()),
    "sound that is not base64": bytearray(
        json.dumps({"input_audio": {"data": f"{BIG}-AAA"}}).encode()
    ),
    "metadata": bytearray(json.dumps(chat(metadata={"url": BIG, "data": BIG})).encode()),
    "another key": body(f"data:image/png;base64,{BIG}", key="uri"),
    "not base64": body(f"data:image/png;base64,{BIG}!AAA"),
    "padding within": body(f"data:image/png;base64,{BIG[:65532]}AA=={BIG}"),
    "odd length": body(f"data:image/png;base64,{BIG}A"),
    "no end": body(f"data:image/png;base64,{BIG}")[:-10].rstrip(b'"}]'),
}


@pytest.mark.parametrize("kind", UNTOUCHED)
def test_all_else_is_left_alone(kind: str) -> None:
    """What is no large attachment, or is not base64, is passed on as it came."""
    assert shorten_attachments(UNTOUCHED[kind]) == UNTOUCHED[kind]


PIECES = [
    '"',
    "url",
    '"url"',
    '"data"',
    '"image_url":{"url":"',
    '"file": {',
    ":",
    " ",
    "data:",
    "image/png",
    ";base64,",
    "\\",
    "AAAA",
    "{",
    "}",
]


@given(pieces=st.lists(st.sampled_from([*PIECES, BIG]), max_size=12))
@settings(max_examples=50, deadline=None)
def test_nothing_but_base64_is_lost(pieces: list[str]) -> None:
    """Whatever comes, only the ends of long base64 are cut, and none without attachments."""
    raw = bytearray("".join(pieces).encode())
    cut = bytes(shorten_attachments(raw))
    for before, after in zip(LETTERS.findall(raw), LETTERS.findall(cut), strict=True):
        assert before == after or (before.startswith(after) and len(after) >= KEPT)
    assert LETTERS.sub(b"", cut) == LETTERS.sub(b"", raw)
    if b'"url"' not in raw and b'"data"' not in raw:
        assert cut == raw


def test_large_picture_is_counted(http: httpx.Client) -> None:
    """A picture of 6 MB counts by its size in pixels like a small one."""
    small = png(2048, 4096)
    large = small + bytes(4_500_000)
    counts = []
    for picture in (small, large):
        asked = chat(messages=[{"role": "user", "content": [image(data_url(picture))]}])
        answer = http.post(CHAT_PATH, json={**asked, "model": "gpt-4o"}, headers=headers())
        counts.append(answer.json()["usage"]["prompt_tokens"])
    assert counts[0] == counts[1] > 1105


@pytest.mark.parametrize(
    ("end", "code"), [("!", "invalid_base64"), ("=A", "invalid_base64"), ("", "image_parse_error")]
)
def test_faulty_large_picture(http: httpx.Client, end: str, code: str) -> None:
    """A large picture is refused for a fault at its very end, and for being no picture."""
    start = png(8, 8) if end else b""
    url = f"data:image/png;base64,{base64.b64encode(start + bytes(1_500_000)).decode()}{end}"
    asked = chat(messages=[{"role": "user", "content": [image(url)]}])
    response = http.post(CHAT_PATH, json=asked, headers=headers())
    assert (response.status_code, response.json()["error"]["code"]) == (400, code)
