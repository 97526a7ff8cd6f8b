"""Plain English whose every word and mark is one token: what the choices say."""

import random
import re

# Every word and mark below is one token in cl100k_base, o200k_base and p50k_base alike. All
# three encodings split text at word borders before they merge bytes, so that a text of n
# such words and marks is n tokens, wherever it ends.

_SENTENCES = """
The {adjective} {person} {verb} the {thing} near the {place}.
In the {time}, the {person} {verb} a {adjective} {thing}.
Every {place} has a {adjective} {thing} and a {adjective} {person}.
When the {person} {verb} the {thing}, the {place} was {adjective}.
Most people think that the {adjective} {thing} is still in the {place}.
It is {adjective} to find a {adjective} {thing} in the {place}.
After the {time}, the {person} walked to the {place} with a {thing}.
The {person} said that the {thing} was {adjective}, but the {person} did not agree.
There was a {adjective} {thing} behind the {place}, and the {person} {verb} it.
Once a {adjective} {person} lived in the {place}, and later {verb} the {thing}.
Before the {time}, no {person} in the {place} {verb} the {adjective} {thing}.
She {verb} the {thing} because the {person} was {adjective}.
He looked at the {thing}, then {verb} the {adjective} {thing}.
They waited in the {place} until the {person} {verb} the {thing}.
We often talked about the {person} who {verb} a {adjective} {thing}.
Near the {place} there was a {thing} so {adjective} that the {person} {verb} it again.
"""
_WORDS = {
    "adjective": """
        black blue brave bright broken careful clean clever cold common complete curious deep
        distant early empty fair famous final formal fresh friendly full gentle golden green happy
        hard heavy hidden huge large light local long lost low main modern narrow natural new nice
        perfect plain private public quick quiet rare real red rich round safe secret serious sharp
        short silent silver simple small smooth soft solid special steady strange strong sudden
        sweet tall thick thin tiny useful vast warm weak white wide wild wise wooden young
    """,
    "person": """
        baker brother builder captain child clerk coach customer dancer designer doctor driver
        editor farmer father friend guard guest hunter judge king lawyer leader manager merchant
        mother musician neighbor nurse officer painter pilot player poet prince princess queen
        reader reporter sailor scholar scientist singer sister soldier stranger student teacher
        traveler uncle visitor worker writer
    """,
    "thing": """
        apple bag basket bell bird boat book bottle bowl box bread bridge cake camera candle car
        chair clock coat coin computer cup dog door fence fish flower gate hat horse key knife
        ladder lamp letter machine map message mirror paper phone picture plan plate poem question
        radio report ring rope secret ship song statue stone story table tool train tree wall wheel
        window
    """,
    "place": """
        beach camp castle church city coast cottage desert factory farm field forest garden hall
        harbor hospital hotel house island kitchen lake library market mountain museum office
        palace park port school shop square station street temple theater tower town valley village
    """,
    "verb": """
        bought brought carried chose cleaned closed covered described discovered dropped enjoyed
        examined explained filled finished followed found gave held hid kept knew left liked lost
        loved measured moved needed noticed offered opened ordered passed picked placed planned
        prepared protected pulled pushed raised reached received recorded remembered repaired
        returned saved sent shared showed sold stole studied told took touched used wanted washed
        watched
    """,
    "time": "afternoon autumn evening morning night spring summer winter",
}
COMMON_WORDS = list(dict.fromkeys(f" {word}" for text in _WORDS.values() for word in text.split()))
_CORPUS_SENTENCES = 8192
_CORPUS_SEED = 2022


class Corpus:
    """Readable English whose every word and mark is one token, the same in every process.

    ``tokens`` holds the whole text and ``starts`` where its sentences begin; each sentence's first
    token has a leading space, which the first token of an answer loses. ``rng`` is for texts that
    no seed has to reproduce.
    """

    is_ascii = True

    def __init__(self, rng: random.Random | None = None) -> None:
        self.rng = rng or random.Random()
        rng = random.Random(_CORPUS_SEED)
        words = {slot: text.split() for slot, text in _WORDS.items()}
        patterns = _SENTENCES.strip().splitlines()
        self.tokens: list[str] = []
        self.starts: list[int] = []
        for _ in range(_CORPUS_SENTENCES):
            self.starts.append(len(self.tokens))
            slots = re.sub(r"{(\w+)}", lambda m: rng.choice(words[m[1]]), rng.choice(patterns))
            self.tokens += re.findall(r" \w+|[.,]", f" {slots}")

    def write(self, length: int, rng: random.Random | None = None) -> list[str]:
        """Return a text of exactly `length` tokens that begins with a sentence of rng's choice.

        Each text is a new one, but the same state of `rng` gives the same text.
        The second sentence is chosen apart from the first: more texts than pairs of sentences.
        """
        rng = rng or self.rng
        # rng.choice takes five times as long.
        first = int(rng.random() * (len(self.starts) - 1))
        then = self.starts[int(rng.random() * len(self.starts))]
        opening = self.tokens[self.starts[first] : self.starts[first + 1]]
        opening[0] = opening[0].lstrip()
        rest = length - len(opening)
        if rest <= 0:
            return opening[:length]
        following = self.tokens[then : then + rest]
        while len(following) < rest:
            following += self.tokens[: rest - len(following)]
        return opening + following
