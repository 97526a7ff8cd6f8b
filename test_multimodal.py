"""Chats with images over the wire, on a real server.

Run with pytest, or as a script: ``python test_multimodal.py``.
"""

import base64
import random
import socket
import struct
import sys
import zlib
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionContentPartParam

from tests.support.wire import CHAT_PATH, headers, post, stream, token_count

PNG_1X1 = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhf"
    "DwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
CAT_URL = "https://example.com/cat.png"
TEXT = {"type": "text", "text": "请描述这张图片"}


# --------------------------------------------------------------------------------------
# Pictures, each no more than what states its size
# --------------------------------------------------------------------------------------


def png(width: int, height: int) -> bytes:
    """Return a whole black PNG."""

    def block(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(height * (1 + -(-width // 8))))
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", block(b"IHDR", head), block(b"IDAT", pixels), block(b"IEND", b"")]
    )


def jpeg(width: int, height: int) -> bytes:
    """Return the start and the frame header of a JPEG."""
    jfif = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
    frame = b"\xff\xc0\x00\x0b\x08" + struct.pack(">HH", height, width) + b"\x01\x01\x11\x00"
    return b"\xff\xd8" + jfif + frame + b"\xff\xd9"


def gif(width: int, height: int) -> bytes:
    """Return the screen descriptor of a GIF."""
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\x00\x00\x00;"


def webp(width: int, height: int) -> bytes:
    """Return the extended header of a WebP."""
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + size
    return b"RIFF" + struct.pack("<I", len(body)) + body


def data_url(picture: bytes, kind: str = "png") -> str:
    """Return a picture as a base64 data URL."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def image(url: str, detail: str | None = None) -> dict[str, Any]:
    """Return the part of a message that shows a picture."""
    return {
        "type": "image_url",
        "image_url": {"url": url, **({"detail": detail} if detail else {})},
    }


# --------------------------------------------------------------------------------------
# Requests
# --------------------------------------------------------------------------------------


def ask(http: httpx.Client, parts: list[dict[str, Any]], model: str) -> httpx.Response:
    """Ask about `parts`, at no latency."""
    body = {"model": model, "messages": [{"role": "user", "content": parts}]}
    return http.post(CHAT_PATH, json=body, headers=headers())


def prompt_tokens(http: httpx.Client, parts: list[dict[str, Any]], model: str) -> int:
    """Return the prompt tokens that the usage states."""
    return int(ask(http, parts, model).raise_for_status().json()["usage"]["prompt_tokens"])


def image_tokens(http: httpx.Client, *images: dict[str, Any], model: str = "gpt-4o") -> int:
    """Return by how many prompt tokens a question with `images` exceeds the bare question."""
    return prompt_tokens(http, [TEXT, *images], model) - prompt_tokens(http, [TEXT], model)


# --------------------------------------------------------------------------------------
# The specification's examples
# --------------------------------------------------------------------------------------


def example(url: str) -> bytes:
    """Return the body of the specification's vision examples."""
    return f"""{{
    "model": "gpt-4-vision-preview",
    "messages": [
      {{
        "role": "user",
        "content": [
          {{"type": "text", "text": "请描述这张图片"}},
          {{
            "type": "image_url",
            "image_url": {url}
          }}
        ]
      }}
    ],
    "stream": false
  }}""".encode()


@pytest.mark.parametrize(
    ("url", "length"),
    [
        (f'{{"url": "data:image/png;base64,{PNG_1X1}"}}', 30),
        ('{"url": "https://example.com/cat.png", "detail": "high"}', 25),
    ],
    ids=["base64", "url"],
)
def test_curl_examples(http: httpx.Client, url: str, length: int) -> None:
    """The specification's two vision examples get answers of the length that they ask for."""
    response = http.post(
        CHAT_PATH,
        headers={"Content-Type": "application/json", "X-OUTPUT-LENGTH": str(length)},
        content=example(url),
    )
    answer = response.json()
    assert response.status_code == 200
    assert answer["model"] == "gpt-4-vision-preview"
    assert token_count(answer["choices"][0]["message"]["content"], "cl100k_base") == length


CLIENT_PARTS: list[ChatCompletionContentPartParam] = [
    {"type": "text", "text": "请描述这张图片"},
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG_1X1}"}},
]


def test_client_example(client: openai.OpenAI) -> None:
    """The specification's vision example with the official client gets its 30 tokens."""
    response = client.chat.completions.create(
        model="gpt-4-vision-preview",
        messages=[{"role": "user", "content": CLIENT_PARTS}],
        extra_headers={"X-OUTPUT-LENGTH": "30"},
    )
    assert token_count(response.choices[0].message.content or "", "cl100k_base") == 30


@pytest.mark.anyio
async def test_async_client_streams(async_client: openai.AsyncOpenAI) -> None:
    """The asynchronous client streams an answer about a picture."""
    chunks = await async_client.chat.completions.create(
        model="gpt-4-vision-preview",
        messages=[{"role": "user", "content": CLIENT_PARTS}],
        stream=True,
        extra_headers=headers(output_length=9),
    )
    texts = [chunk.choices[0].delta.content async for chunk in chunks]
    assert len([text for text in texts if text]) == 9


def test_stream_about_a_picture(http: httpx.Client, address: tuple[str, int]) -> None:
    """A stream about a picture counts the same prompt as a whole answer."""
    parts = [TEXT, image(CAT_URL)]
    answer = stream(
        address,
        headers(output_length=7),
        model="gpt-4o",
        messages=[{"role": "user", "content": parts}],
        stream_options={"include_usage": True},
    )
    assert len(answer.content) == 7
    assert answer.chunks[-1]["usage"]["prompt_tokens"] == prompt_tokens(http, parts, "gpt-4o")


# --------------------------------------------------------------------------------------
# Prompt tokens
# --------------------------------------------------------------------------------------


def test_chinese_text_is_counted(http: httpx.Client) -> None:
    """A part's Chinese text counts its tokens: 3 + 3 + the role + the text."""
    expected = 7 + token_count(TEXT["text"], "cl100k_base")
    assert prompt_tokens(http, [TEXT], "gpt-4-vision-preview") == expected


@pytest.mark.parametrize(
    ("size", "detail", "tokens"),
    [
        ((1024, 1024), "low", 85),
        ((2048, 4096), "low", 85),
        ((1024, 1024), "high", 765),
        ((2048, 4096), "high", 1105),
        ((4096, 2048), "high", 1105),
        ((1024, 1024), "auto", 765),
        ((1024, 1024), None, 765),
        ((1, 1), "high", 255),
        ((512, 512), "high", 255),
        ((513, 512), "high", 425),
        ((512, 513), "high", 425),
        ((768, 768), "high", 765),
        ((4096, 4096), "high", 765),
        ((4096, 64), "high", 765),
    ],
)
def test_tile_formula(
    http: httpx.Client, size: tuple[int, int], detail: str | None, tokens: int
) -> None:
    """A picture counts 85 tokens and, but at low detail, 170 for each tile."""
    assert image_tokens(http, image(data_url(png(*size)), detail)) == tokens


@pytest.mark.parametrize(
    ("model", "low", "high"),
    [
        ("gpt-4-vision-preview", 85, 765),
        ("gpt-4-turbo", 85, 765),
        ("gpt-4.1", 85, 765),
        ("gpt-4.5-preview", 85, 765),
        ("gpt-4o-mini", 2833, 25501),
        ("gpt-4o-mini-2024-07-18", 2833, 25501),
        ("o1", 75, 675),
        ("o3", 75, 675),
        ("gpt-5", 70, 630),
    ],
)
def test_tokens_by_model(http: httpx.Client, model: str, low: int, high: int) -> None:
    """Each family of models has a base and a tile of its own."""
    square = data_url(png(1024, 1024))
    assert image_tokens(http, image(square, "low"), model=model) == low
    assert image_tokens(http, image(square, "high"), model=model) == high


@pytest.mark.parametrize("detail", ["high", "auto", None])
@pytest.mark.parametrize("url", [CAT_URL, "http://example.com/cat?x=1", "HTTPS://example.com/猫"])
def test_url_counts_as_1024_x_1024(http: httpx.Client, url: str, detail: str | None) -> None:
    """A picture behind an URL counts as 1024 x 1024 pixels."""
    assert image_tokens(http, image(url, detail)) == 765


@pytest.mark.parametrize(
    ("kind", "picture"),
    [
        ("png", png(600, 300)),
        ("jpeg", jpeg(600, 300)),
        ("jpg", jpeg(600, 300)),
        ("gif", gif(600, 300)),
        ("webp", webp(600, 300)),
    ],
)
def test_media_types(http: httpx.Client, kind: str, picture: bytes) -> None:
    """The size of a PNG, JPEG, GIF or WebP is read from its header: 600 x 300 is two tiles."""
    assert image_tokens(http, image(data_url(picture, kind), "high")) == 425


def test_several_images_add_up(http: httpx.Client) -> None:
    """Several pictures in one message add up."""
    images = [
        image(CAT_URL, "low"),
        image(data_url(png(2048, 4096)), "high"),
        image(data_url(gif(1024, 1024), "gif")),
    ]
    assert image_tokens(http, *images) == 85 + 1105 + 765


def test_any_order(http: httpx.Client) -> None:
    """Texts and pictures may come in any order, and count the same in each."""
    parts = [TEXT, image(CAT_URL), {"type": "text", "text": "and this"}, image(CAT_URL, "low")]
    counts = set()
    for seed in range(6):
        random.Random(seed).shuffle(parts)
        counts.add(prompt_tokens(http, parts, "gpt-4o"))
    assert len(counts) == 1


def test_image_alone(http: httpx.Client) -> None:
    """A message may be a picture and no text."""
    assert prompt_tokens(http, [image(CAT_URL, "low")], "gpt-4o") == 3 + 3 + 1 + 85


def test_large_image(http: httpx.Client) -> None:
    """A picture of several megabytes is accepted."""
    picture = png(1024, 1024) + random.Random(0).randbytes(8_000_000)
    assert image_tokens(http, image(data_url(picture))) == 765


@pytest.mark.usefixtures("local_only")
def test_urls_are_never_fetched(http: httpx.Client) -> None:
    """The server does not open a connection to where a picture is said to be."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert image_tokens(http, image(f"http://127.0.0.1:{port}/cat.png")) == 765
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


# --------------------------------------------------------------------------------------
# Errors
# --------------------------------------------------------------------------------------

FAULTY_URLS = {
    "broken base64": ("data:image/png;base64,@@@@", "base64"),
    "base64 of wrong length": ("data:image/png;base64,abcde", "base64"),
    "not ASCII": ("data:image/png;base64,é", "base64"),
    "no base64": ("data:image/png,abcd", "base64"),
    "unsupported type": (f"data:image/tiff;base64,{PNG_1X1}", "image/tiff"),
    "no image": ("data:text/plain;base64,aGVsbG8=", "text/plain"),
    "no type": (f"data:;base64,{PNG_1X1}", "type"),
    "other scheme": ("ftp://example.com/cat.png", "ftp://example.com/cat.png"),
    "local file": ("file:///etc/passwd", "file:///etc/passwd"),
    "no scheme": ("example.com/cat.png", "example.com/cat.png"),
    "no host": ("http://", "http"),
    "broken host": ("http://[::1", "http"),
    "empty": ("", "URL"),
    "no data": ("data:image/png;base64,", "bytes"),
    "truncated PNG": (data_url(png(8, 8)[:20]), "20 bytes"),
    "truncated JPEG": (data_url(jpeg(8, 8)[:24], "jpeg"), "24 bytes"),
    "truncated GIF": (data_url(gif(8, 8)[:8], "gif"), "8 bytes"),
    "truncated WebP": (data_url(webp(8, 8)[:22], "webp"), "22 bytes"),
    "no picture at all": (data_url(b"hello, world"), "12 bytes"),
    "empty picture": (data_url(gif(0, 8), "gif"), "bytes"),
}


@pytest.mark.parametrize("fault", FAULTY_URLS)
def test_faulty_urls(http: httpx.Client, fault: str) -> None:
    """A faulty picture is a 400 that names the part's path and says what came."""
    url, said = FAULTY_URLS[fault]
    response = ask(http, [TEXT, image(url)], "gpt-4o")
    error = response.json()["error"]
    assert response.status_code == 400
    assert error["type"] == "invalid_request_error"
    assert error["param"] == "messages[0].content[1].image_url.url"
    assert said in error["message"]


@pytest.mark.parametrize(
    ("part", "param", "code"),
    [
        ({"type": "image_url"}, ".image_url", "missing_required_parameter"),
        ({"type": "image_url", "image_url": CAT_URL}, ".image_url", "invalid_type"),
        ({"type": "image_url", "image_url": {}}, ".image_url.url", "missing_required_parameter"),
        ({"type": "image_url", "image_url": {"url": 5}}, ".image_url.url", "invalid_type"),
        (image(CAT_URL, "medium"), ".image_url.detail", "invalid_value"),
        ({"type": "video_url"}, ".type", "invalid_value"),
        ({"text": "x"}, ".type", "missing_required_parameter"),
        ("text", "", "invalid_type"),
    ],
)
def test_faulty_parts(http: httpx.Client, part: dict[str, Any], param: str, code: str) -> None:
    """A faulty part is a 400 with the path to the fault."""
    response = ask(http, [TEXT, TEXT, part], "gpt-4o")
    error = response.json()["error"]
    assert response.status_code == 400
    assert (error["param"], error["code"]) == (f"messages[0].content[2]{param}", code)


def test_path_names_the_message(http: httpx.Client) -> None:
    """The path counts messages too."""
    messages = [
        {"role": "system", "content": "Look."},
        {"role": "user", "content": [image(CAT_URL), image("ftp://x/y")]},
    ]
    response = http.post(CHAT_PATH, json={"model": "gpt-4o", "messages": messages})
    assert response.json()["error"]["param"] == "messages[1].content[1].image_url.url"


def test_images_are_for_users(http: httpx.Client) -> None:
    """Only a user's message may show a picture."""
    messages = [{"role": "system", "content": [image(CAT_URL)]}]
    response = http.post(CHAT_PATH, json={"model": "gpt-4o", "messages": messages})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "messages[0].content[0].type"


def test_error_does_not_repeat_a_long_url(address: tuple[str, int]) -> None:
    """The message about a long URL stays short."""
    parts = [image("ftp://example.com/" + "x" * 100_000)]
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": parts}]}
    assert len(post(address, body).body) < 1000


if __name__ == "__main__":
    # httpx has imported anyio, so that pytest cannot rewrite the asserts of its plugin.
    unwarned = "ignore::pytest.PytestAssertRewriteWarning"
    sys.exit(pytest.main([__file__, "-W", unwarned, *sys.argv[1:]]))
