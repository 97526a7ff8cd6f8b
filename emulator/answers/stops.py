"""Stop sequences: where they end a text, and what of it they hold back."""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass


@dataclass(slots=True)
class HeldText:
    """What of a text leaves under the watch of its stop sequences.

    ``token_slots[k]`` is the slot in which token ``k`` leaves, ``slots`` how many tokens were made;
    ``stop`` is the stop sequence, or the token id, that ended it.
    """

    tokens: list[str]
    token_slots: list[int]
    slots: int
    stop: str | int | None = None

    @property
    def stopped(self) -> bool:
        """Whether a stop sequence ended it."""
        return self.stop is not None


def hold_back(
    tokens: Sequence[str],
    stops: Sequence[str],
    split: Callable[[str], list[str]],
    *,
    keeps: bool = False,
) -> HeldText:
    """End a text before the first complete stop sequence, and hold back what could become one.

    With `keeps` it ends after that sequence.

    As on a real server, text that may be the start of a stop sequence leaves when it is known not
    to be, or with the end of the answer. What a stop leaves of a word is `split` anew, into no more
    tokens than were made. A token may be empty, if it holds but a part of a character.

    >>> hold_back(["a", "b", "c", "d"], ["bx"], list).token_slots
    [0, 2, 2, 3]
    """
    text = "".join(tokens)
    slots, found, safe = _watch(tokens, [stop[: len(text) + 1] for stop in stops])
    cut = None
    if found is not None:
        cut = found[0] + len(found[1]) if keeps else found[0]
    kept = list(tokens[:slots]) if cut is None else _cut(tokens[:slots], cut, split)
    leaves: list[int] = []
    end = slot = 0
    is_as_made = True
    for place, (token, made) in enumerate(zip(kept, tokens, strict=False)):
        is_as_made = is_as_made and token == made
        end += len(token)
        slot = max(slot, place)
        while slot < slots - 1 and (safe[slot] < end or not is_as_made):
            slot += 1
        leaves.append(slot)
    return HeldText(kept, leaves, slots, None if found is None else found[1])


def end_at(ids: Sequence[Sequence[int]], stops: Set[int], least: int) -> int | None:
    """Return at which token a text ends: the first with an id that stops it, None if none has.

    The first `least` tokens do not.
    """
    places = range(least, len(ids))
    return next((place for place in places if not stops.isdisjoint(ids[place])), None)


def _cut(tokens: Sequence[str], cut: int, split: Callable[[str], list[str]]) -> list[str]:
    """Return the tokens of the first `cut` characters; a word that is cut is split anew."""
    kept: list[str] = []
    end = 0
    for token in tokens:
        if end + len(token) > cut:
            break
        kept.append(token)
        end += len(token)
    after = "".join(tokens[len(kept) :])
    if end == cut and (not kept or not after or after[0].isascii()):
        return kept
    # A token before a character of several bytes may hold some of them.
    start = len(kept) if end < cut else len(kept) - 1
    while start and not _begins_word(tokens[start]):
        start -= 1
    parts = split("".join(kept[start:]) + after[: cut - end])
    most = len(tokens) - start
    if len(parts) > most:
        parts = [*parts[: most - 1], "".join(parts[most - 1 :])]
    return [*kept[:start], *parts]


def _begins_word(token: str) -> bool:
    """Tell whether encodings split a text before a token, whatever comes before it."""
    return len(token) > 1 and token[0] == " " and not token[1].isspace()


def _watch(
    tokens: Sequence[str], stops: Sequence[str]
) -> tuple[int, tuple[int, str] | None, list[int]]:
    """Look for stop sequences.

    Returns:
        How many tokens it took, where in the text the first complete stop sequence begins and what
        it is (None if there is none), and for each slot up to where the text is known to hold no
        part of one.
    """
    watches = [_Watch(stop) for stop in stops]
    safe: list[int] = []
    end = 0
    for slot, token in enumerate(tokens):
        for char in token:
            end += 1
            complete = [watch.stop for watch in watches if watch.feed(char)]
            if complete:
                longest = max(complete, key=len)
                return slot + 1, (end - len(longest), longest), [*safe, 0]
        safe.append(end - max((watch.matched for watch in watches), default=0))
    return len(tokens), None, safe


class _Watch:
    """Knuth, Morris and Pratt's search for one stop sequence, a character at a time."""

    def __init__(self, stop: str) -> None:
        self.stop = stop
        self.matched = 0
        self._borders = [0] * len(stop)
        for i in range(1, len(stop)):
            self._borders[i] = self._extend(self._borders[i - 1], stop[i])

    def _extend(self, matched: int, char: str) -> int:
        while matched and self.stop[matched] != char:
            matched = self._borders[matched - 1]
        return matched + 1 if self.stop[matched] == char else 0

    def feed(self, char: str) -> bool:
        """Take the text's next character; return whether the stop sequence is complete."""
        self.matched = self._extend(self.matched, char)
        return self.matched == len(self.stop)
