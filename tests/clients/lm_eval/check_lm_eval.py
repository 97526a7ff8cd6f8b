"""lm-eval with local-completions: a task of ten lines, whose choices it ranks, and texts."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI
from lm_eval.tasks import TaskManager

HERE = Path(__file__).parent
URL = f"{os.environ['EMULATOR_URL']}/v1/completions"
LINES = 10


def model(**more: object) -> LocalCompletionsAPI:
    """Return lm-eval's client, which sends token ids in batches of four."""
    return LocalCompletionsAPI(
        URL, "tiktoken", model="davinci-002", batch_size=4, max_retries=1, **more
    )


@pytest.fixture(autouse=True)
def at_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in the folder of the task's rows."""
    monkeypatch.chdir(HERE)


def figures(asked: LocalCompletionsAPI) -> Sequence[Sequence[tuple[float, bool]]]:
    """Return each line's figures, one for each of its choices."""
    tasks = TaskManager(include_path=str(HERE), include_defaults=False)
    ended = simple_evaluate(asked, tasks=["ten_lines"], task_manager=tasks, bootstrap_iters=0)
    return [
        [(float(figure), greedy) for figure, greedy in line["filtered_resps"]]
        for line in sorted(ended["samples"]["ten_lines"], key=lambda line: line["doc_id"])
    ]


def test_choices_differ() -> None:
    """Each of a line's choices has a log probability of its own, below 0."""
    lines = figures(model())
    assert len(lines) == LINES
    for line in lines:
        assert max(figure for figure, _ in line) < 0
        assert len({figure for figure, _ in line}) == len(line)


def test_figures_repeat() -> None:
    """Other batches, at once or one by one, as ids or as text, have the same figures."""
    first = figures(model())
    others = [model(num_concurrent=4), model(tokenized_requests=False)]
    assert all(figures(other) == first for other in others)
    assert len({figure for line in first for figure, _ in line}) > LINES


def test_perplexity() -> None:
    """A text's log probability, from its first token on, is that of no other text and below 0."""
    texts = ["Ice is frozen water.", "Bread is made from flour."]
    asked = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in texts]
    first, second = model().loglikelihood_rolling(asked)
    assert first < 0
    assert second not in {first, 0}


def test_generation_stops() -> None:
    """Texts are written, up to a stop string that they do not hold."""
    asked = [
        Instance("generate_until", {}, (text, {"until": [" the"], "max_gen_toks": 8}), 0)
        for text in ("Once upon a time", "In the beginning")
    ]
    texts = model().generate_until(asked)
    assert all(text and " the" not in text for text in texts)


def test_failure_is_retried() -> None:
    """A request that fails once is sent again."""
    header = {"X-FAULT-STATUS": "503", "X-FAULT-ATTEMPTS": "1", "X-FAULT-KEY": os.urandom(8).hex()}
    again = LocalCompletionsAPI(URL, "tiktoken", model="davinci-002", max_retries=2, header=header)
    (text,) = again.generate_until([Instance("generate_until", {}, ("Once", {}), 0)])
    assert text
