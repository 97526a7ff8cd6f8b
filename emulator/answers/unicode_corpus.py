"""Text in many scripts, with accents and emoji: what choices say where ``unicode`` is asked for.

It is split into tokens beforehand, once for each encoding, so that it costs what English costs. The
clients that it is for take the bytes or the tokens of a text for its characters.
"""

import random
import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import accumulate
from typing import NamedTuple

from tokenizer import split_tokens, token_bytes, token_ids

# Without quotation marks and backslashes: in JSON it stands as it is, in UTF-8.
_SENTENCES = """
Où est {name} ? Déjà à {city} {emoji}.
El niño comió piña en {city} {emoji}.
Über den Dächern von {city} schläft die Katze, ganz süß {emoji}.
Zażółć gęślą jaźń, {name} {emoji}.
Cà phê sữa đá ở {city} rất ngon {emoji}.
Þórður og Æsa búa í {city} {emoji}.
Сегодня {name} едет в {city} {emoji}.
Η {name} πήγε στην {city} χθες {emoji}.
今天{name}在{city}喝茶{emoji}。
{name}さんは{city}でラーメンを食べました{emoji}。
오늘 {name}은 {city}에서 커피를 마셨어요 {emoji}.
ذهب {name} إلى {city} اليوم {emoji}.
הלכנו עם {name} אל {city} {emoji}.
आज {name} {city} में चाय पी रहे हैं {emoji}।
วันนี้ {name} อยู่ที่ {city} {emoji}
{name} said “naïve café” in {city} and smiled {emoji}.
Das kostet 12,50 € in {city}, ±3 % {emoji}.
∑ 𝑥² ≈ π ⇒ {name}: «voilà» {emoji}.
{name} wrote cafe\u0301 with a combining mark {emoji}.
"""  # noqa: RUF001 - other scripts
_WORDS = {
    "name": "José Zoë Łukasz Søren Ирина Ελένη 美咲 小明 지민 عمر נועה आरव สมชาย 𝒜𝓃𝓃𝒶",  # noqa: RUF001
    "city": "Zürich Málaga Kraków Москва Αθήνα 東京 北京 서울 القاهرة חיפה दिल्ली กรุงเทพ",
    "emoji": "🙂 🎉 🌤️ 👩‍💻 🇫🇷 👍🏽 🚀 🐉 🫠 ❤️‍🔥 ☕ 𓆉",
}
# What a text ends with where it must end within a character, as far as it is one token.
_ENDINGS = list("éàèêöüäñßçåøíóúáîôâšžł")
_SENTENCES_IN_ALL = 304  # sixteen of each pattern
_SEED = 2025


class UnicodeCorpus:
    """Text in many scripts as the tokens of one encoding, the same in every process.

    A token is the characters that are complete with it, so that it may be empty. A text of n tokens
    ends with a whole character, and is n tokens by tiktoken.

    Args:
        model: A model of the encoding.
        rng: For texts that no seed has to reproduce.
    """

    is_ascii = False

    def __init__(self, model: str, rng: random.Random) -> None:
        self.rng = rng
        self._openings: list[_Run] = []
        self._starts: list[int] = []
        self._all = _Run([], [])
        split = cache(partial(_split, model))
        for sentence in _sentences():
            self._openings.append(_run(sentence, split))
            following = _run(f" {sentence}", split)
            self._starts.append(len(self._all.tokens))
            self._all.tokens.extend(following.tokens)
            self._all.ends.extend(following.ends)
        self._first_endings = [e for e in _ENDINGS if len(split_tokens(e, model)) == 1]
        self._endings = [f" {e}" for e in _ENDINGS if len(split_tokens(f" {e}", model)) == 1]

    def write(self, length: int, rng: random.Random | None = None) -> list[str]:
        """Return a text of exactly `length` tokens that begins with a sentence of rng's choice.

        Each text is a new one, but the same state of `rng` gives the same text.
        """
        rng = rng or self.rng
        opening, start = rng.choice(self._openings), rng.choice(self._starts)
        rest = length - len(opening.tokens)
        if rest <= 0:
            end = length
            while end and not opening.ends[end - 1]:
                end -= 1
            return opening.tokens[:end] + self._ending(length - end, rng, is_first=not end)
        tokens, ends = self._all.tokens, self._all.ends
        end = rest
        while end and not ends[(start + end - 1) % len(ends)]:
            end -= 1
        following = tokens[start : start + end]
        while len(following) < end:
            following += tokens[: end - len(following)]
        return opening.tokens + following + self._ending(rest - end, rng)

    def _ending(self, length: int, rng: random.Random, *, is_first: bool = False) -> list[str]:
        """Return the tokens in place of a character that there is no room for."""
        return [
            rng.choice(self._first_endings if is_first and not place else self._endings)
            for place in range(length)
        ]


class _Run(NamedTuple):
    """Tokens, and for each of them whether a character ends with it."""

    tokens: list[str]
    ends: list[bool]


def _run(text: str, split: Callable[[str], "_Run"]) -> _Run:
    """Return the tokens of a text, word by word: encodings split a text before a space."""
    run = _Run([], [])
    for word in re.findall(r" ?[^ ]+", text):
        tokens, ends = split(word)
        run.tokens.extend(tokens)
        run.ends.extend(ends)
    return run


def _split(model: str, text: str) -> _Run:
    tokens = split_tokens(text, model)
    sizes = [sum(map(len, token_bytes(ids, model))) for ids in token_ids(tokens, model)]
    characters = accumulate(len(token.encode()) for token in tokens)
    return _Run(tokens, [a == b for a, b in zip(accumulate(sizes), characters, strict=True)])


def _sentences() -> Iterator[str]:
    rng = random.Random(_SEED)
    words = {slot: text.split() for slot, text in _WORDS.items()}
    patterns = _SENTENCES.strip().splitlines()
    for number in range(_SENTENCES_IN_ALL):
        pattern = patterns[number % len(patterns)]
        yield re.sub(r"{(\w+)}", lambda match: rng.choice(words[match[1]]), pattern)
