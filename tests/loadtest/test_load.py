"""Many streams at once."""

import pytest

from tests.support.server import Server
from tests.support.wire import DONE, Answer, Post, chat, headers, post_together

STREAMS, TTFT_MS, ITL_MS, TOKENS = 200, 200, 20, 50


@pytest.fixture(scope="module")
def answers(server: Server) -> list[Answer]:
    """Run 200 streams at once; `benchmarks.fidelity` shows how true their times are."""
    post = Post(chat(stream=True), headers(TTFT_MS, ITL_MS, TOKENS))
    return post_together(server.address, [post] * STREAMS)


def test_no_token_is_lost(answers: list[Answer]) -> None:
    """Each of 200 streams has all its tokens and its end."""
    ends = {(len(answer.content), answer.events[-1].data) for answer in answers}
    assert ends == {(TOKENS, DONE)}


def test_no_token_is_early_under_load(answers: list[Answer]) -> None:
    """None of 10,000 tokens arrives before it is due."""
    assert [early for answer in answers for early in answer.early(TTFT_MS, ITL_MS)] == []
