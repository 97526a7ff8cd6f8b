"""Many streams at once."""

from dataclasses import dataclass

import pytest

from tests.support.reference import watched_machine
from tests.support.server import Server
from tests.support.wire import DONE, Answer, Post, chat, headers, post_together

STREAMS, TTFT_MS, ITL_MS, TOKENS = 200, 200, 20, 200


def run_streams(server: Server) -> list[Answer]:
    """Run 200 streams at once."""
    post = Post(chat(stream=True), headers(TTFT_MS, ITL_MS, TOKENS))
    return post_together(server.address, [post] * STREAMS)


def worst_error(answers: list[Answer]) -> float:
    """Return how far off the mean ITL of the worst stream is, as a fraction."""
    return max(abs(answer.mean_itl_s * 1000 / ITL_MS - 1) for answer in answers)


@dataclass(frozen=True)
class Run:
    """The answers of streams that ran at once, and what the machine did to their mean ITL."""

    answers: list[Answer]
    machine_error: float

    @property
    def own_error(self) -> float:
        """How far off the worst mean ITL is, as a fraction, but for what the machine did."""
        return worst_error(self.answers) - self.machine_error


@pytest.fixture(scope="module")
def run(server: Server) -> Run:
    """Run 200 streams at once, three times at most: another process may disturb a run."""
    runs: list[Run] = []
    while not runs or (len(runs) < 3 and runs[-1].own_error >= 0.01):
        with watched_machine() as machine:
            answers = run_streams(server)
        runs.append(Run(answers, machine.worst_s * 1000 / ITL_MS / (TOKENS - 1)))
    return min(runs, key=lambda run: run.own_error)


@pytest.fixture(scope="module")
def answers(run: Run) -> list[Answer]:
    """Return the answers."""
    return run.answers


def test_no_token_is_lost(answers: list[Answer]) -> None:
    """Each of 200 streams has all its tokens and its end."""
    ends = {(len(answer.content), answer.events[-1].data) for answer in answers}
    assert ends == {(TOKENS, DONE)}


def test_mean_itl_of_each_stream(run: Run) -> None:
    """The mean ITL of each of 200 streams is less than 1 % off."""
    assert run.own_error < 0.01


def test_no_token_is_early_under_load(answers: list[Answer]) -> None:
    """None of 40,000 tokens arrives before it is due."""
    assert [early for answer in answers for early in answer.early(TTFT_MS, ITL_MS)] == []
