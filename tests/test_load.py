"""Many streams at once."""

import pytest

from tests.server import Server
from tests.wire import DONE, Answer, Post, chat, headers, post_together

STREAMS, TTFT_MS, ITL_MS, TOKENS = 200, 200, 20, 100


def run_streams(server: Server) -> list[Answer]:
    """Run 200 streams at once."""
    post = Post(chat(stream=True), headers(TTFT_MS, ITL_MS, TOKENS))
    return post_together(server.address, [post] * STREAMS)


def worst_error(answers: list[Answer]) -> float:
    """Return how far off the mean ITL of the worst stream is, as a fraction."""
    return max(abs(answer.mean_itl_s * 1000 / ITL_MS - 1) for answer in answers)


@pytest.fixture(scope="module")
def answers(server: Server) -> list[Answer]:
    """Run 200 streams at once, three times at most: another process may disturb a run."""
    runs: list[list[Answer]] = []
    while not runs or (len(runs) < 3 and worst_error(runs[-1]) >= 0.01):
        runs.append(run_streams(server))
    return min(runs, key=worst_error)


def test_no_token_is_lost(answers: list[Answer]) -> None:
    """Each of 200 streams has all its tokens and its end."""
    ends = {(len(answer.content), answer.events[-1].data) for answer in answers}
    assert ends == {(TOKENS, DONE)}


def test_mean_itl_of_each_stream(answers: list[Answer]) -> None:
    """The mean ITL of each of 200 streams is less than 1 % off."""
    assert worst_error(answers) < 0.01


def test_no_token_is_early_under_load(answers: list[Answer]) -> None:
    """None of 20,000 tokens arrives before it is due."""
    assert [early for answer in answers for early in answer.early(TTFT_MS, ITL_MS)] == []
