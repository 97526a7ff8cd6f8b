"""Plausible strings: words, and the formats of JSON schema."""

import random
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

_TEXT = """
    apple river green light paper morning simple garden silver bright letter window music
    travel gentle market story table ocean coffee winter clear bridge forest quiet round golden
    mountain street summer fresh early picture plain valley teacher modern station
"""
WORDS = _TEXT.split()
UNICODE_WORDS = (
    *("Zürich", "naïve", "señor", "Łódź", "smörgås", "привет", "Αθήνα", "東京", "你好"),
    *("안녕", "مرحبا", "שלום", "नमस्ते", "สวัสดี", "🙂", "🎉", "🚀", "cafe\u0301"),
)
# Values for properties with these names.
HINTS = {
    "location": ("Boston, MA", "Paris, France", "Tokyo, Japan", "Oslo, Norway"),
    "city": ("Boston", "Paris", "Tokyo", "Oslo"),
    "country": ("Canada", "France", "Japan", "Norway"),
    "name": ("Alice", "Omar", "Mei", "Sofia"),
}


def _date(rng: random.Random) -> str:
    return f"{rng.randint(1990, 2030)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def _time(rng: random.Random) -> str:
    return f"{rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02}Z"


def _uuid(rng: random.Random) -> str:
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"


def _host(rng: random.Random) -> str:
    return f"{rng.choice(WORDS)}.example.com"


class Format(NamedTuple):
    """A format: how to write a string, and a pattern that tells it from other formats."""

    write: Callable[[random.Random], str]
    pattern: re.Pattern[str]  # takes linear time, as it has no timeout


FORMATS = {
    name: Format(write, re.compile(pattern))
    for name, write, pattern in [
        ("date", _date, r"\d{4}-\d\d-\d\d"),
        ("time", _time, r"\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"),
        (
            "date-time",
            lambda rng: f"{_date(rng)}T{_time(rng)}",
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)",
        ),
        ("duration", lambda rng: f"P{rng.randint(1, 30)}D", r"P(\d+[YMWD])*(T(\d+[HMS])+)?"),
        ("email", lambda rng: f"{rng.choice(WORDS)}@{_host(rng)}", r"[^@\s]+@[^@\s]+"),
        ("hostname", _host, r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?"),
        ("ipv4", lambda rng: f"192.0.2.{rng.randint(1, 254)}", r"\d{1,3}(\.\d{1,3}){3}"),
        (
            "ipv6",
            lambda rng: f"2001:db8::{rng.randint(1, 65535):x}",
            r"[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*",
        ),
        (
            "uri",
            lambda rng: f"https://{_host(rng)}/{rng.choice(WORDS)}",
            r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`]*",
        ),
        ("uri-reference", lambda rng: f"/{rng.choice(WORDS)}", r"[^\s<>\"{}|\\^`]*"),
        ("uuid", _uuid, r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"),
        ("json-pointer", lambda rng: f"/{rng.choice(WORDS)}", r"(/([^~/]|~[01])*)*"),
        ("regex", lambda rng: f"^{rng.choice(WORDS)}$", r"[^\\()\[\]{}*+?]*"),
    ]
}


def words(low: int, high: int, rng: random.Random, choice: Sequence[str] = WORDS) -> str:
    """Return words with `low` to `high` characters in total."""
    text = rng.choice(choice)
    goal = max(low, min(high, rng.randint(5, 20)))
    while len(text) < goal:
        text += f" {rng.choice(choice)}"
    whole = text if len(text) <= high else text[: max(low, text.rfind(" ", 0, high + 1))]
    return (whole or text[:high]).strip().ljust(low, "s")
