"""Prompts of an exact number of tokens, cheap to make.

Each word below is one token, with the space before it, in OpenAI's encodings, and few are more in
others. A passage is eight words that stand for its number, and then always the same ones.
"""

from collections.abc import Sequence
from itertools import accumulate

from loadtest.trace_files import BLOCK_TOKENS, TraceRequest

CHAT_TOKENS = 7  # what a chat of one user message has beside its content, by OpenAI's count

_WORDS = """
    afternoon apple autumn bag baker basket beach bell bird black blue boat book bottle bought
    bowl box brave bread bright broken brother camera camp candle castle chair chose city clean
    cleaned clerk clever clock coach coat common complete cottage covered cup curious customer
    dancer deep desert designer distant doctor dog door dropped early editor empty evening
    examined explained fair famous farm farmer father fence field filled final finished fish
    flower followed forest found fresh friend full garden gate gave gentle golden green guard
    hall happy harbor hat heavy held horse hospital hotel house huge hunter island judge king
    kitchen knife ladder lake lamp large lawyer leader left letter library light liked local
    long lost loved low machine main manager market measured merchant message modern morning
    mother moved museum narrow natural needed neighbor nice night noticed nurse offered office
    officer opened ordered painter palace paper park passed perfect phone picked picture pilot
    plain planned plate poem poet port prepared prince princess private protected public pulled
    pushed quick quiet radio raised rare reached reader real received recorded remembered
    repaired returned rich ring round safe sailor saved scholar school scientist secret sent
    shared sharp ship shop short silent silver simple singer sister small smooth soft sold
    soldier solid song special spring square statue steady stole stone strange stranger street
    strong student studied sudden summer sweet table tall teacher temple thin told took tool
    touched tower train traveler tree uncle used valley vast village visitor wall warm washed
    watched wheel white wide wild window winter wise wooden worker writer young
"""
_SPACED = [f" {word}" for word in _WORDS.split()]  # 256: one for each byte
_NUMBER_BYTES = 8
_FILLER = "".join(_SPACED)
_ENDS = [0, *accumulate(map(len, _SPACED))]


def prompt(request: TraceRequest, number: int) -> str:
    """Return the content of one user message with which a chat has the recorded length.

    It begins with the recorded blocks. What comes after them is the request's own, so that no
    server has it in a prefix cache.

    Args:
        request: The recorded request; one of less than 8 tokens is made with 8.
        number: Tells the request from others; less than 2**64.
    """
    return text(max(1, request.prompt_tokens - CHAT_TOKENS), request.blocks, number)


def text(tokens: int, blocks: Sequence[int], number: int) -> str:
    """Return a text of so many tokens: that of the blocks, and then one of its own.

    >>> text(3, (), 1), text(3, (), 2) == text(3, (), 1)
    (' apple afternoon afternoon', False)
    """
    shared = [
        _passage(block, min(BLOCK_TOKENS, tokens - i * BLOCK_TOKENS))
        for i, block in enumerate(blocks)
        if i * BLOCK_TOKENS < tokens
    ]
    rest = tokens - BLOCK_TOKENS * len(shared)
    return "".join(shared) + (_passage(number, rest) if rest > 0 else "")


def _passage(number: int, tokens: int) -> str:
    """Return a text of so many tokens; its first eight tell it from that of any other number."""
    opening = number.to_bytes(_NUMBER_BYTES, "little")[:tokens]
    repeats, rest = divmod(tokens - len(opening), len(_SPACED))
    return "".join(_SPACED[byte] for byte in opening) + _FILLER * repeats + _FILLER[: _ENDS[rest]]
