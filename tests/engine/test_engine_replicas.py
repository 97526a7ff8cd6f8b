"""Replicas in the service: routed and timed as on paper, counted apart, refused where wrong."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import get_args

import pytest

from benchmarks.engine.simulation import Fleet
from emulator.engine.config import EngineConfig, load_engine
from emulator.settings import MAX_REPLICAS, ConfigError, Policy, Settings, read_settings
from emulator.state import read_state
from tests.engine.test_engine_wire import SMALL, Load, words
from tests.serving.test_settings import failed_start
from tests.support.documents import names, page, table
from tests.support.server import Server, args, eventually, running_server
from tests.support.servers.ahead import shared
from tests.support.simulated.client import Simulated, Timed, running_simulation
from tests.support.wire import Post, chat, post_together

pytestmark = pytest.mark.usefixtures("local_only")


@contextmanager
def simulated(folder: Path, routing: str, number: int = 2) -> Iterator[tuple[Simulated, Fleet]]:
    """Yield the service on simulated time with replicas of a small engine, and the same apart."""
    (folder / "small.yaml").write_text(SMALL)
    settings = {"replicas": number, "routing": routing}
    config: EngineConfig = load_engine(str(folder / "small.yaml"))
    with running_simulation(engine=folder / "small.yaml", **settings) as service:
        yield service, Fleet(config, number, routing)  # type: ignore[arg-type]  # of a text


@pytest.mark.parametrize("routing", ["round-robin", "least-waiting", "prefix-aware", "random"])
def test_every_policy_as_on_paper(tmp_path: Path, routing: str) -> None:
    """Over two replicas each token of 16 requests comes when the simulation says, by any policy."""
    loads = [Load(29 * at, words(40 + at, " ab"[: 2 + at % 2]), 3 + at % 7) for at in range(16)]
    with simulated(tmp_path, routing) as (service, fleet):
        sequences = [load.sequence(fleet.config) for load in loads]
        replicas = fleet.replicas()
        for step in replicas.run([sequence] for sequence in sequences):
            for sequence in step.advanced:
                sequence.due_s.append(step.end_s)
        answers = service.answers(*(load.request for load in loads))
    assert set(replicas.routed) == {0, 1}
    for load, answer, sequence in zip(loads, answers, sequences, strict=True):
        came_s = [load.at_ms / 1000 + at_s for at_s in answer.times_s]
        assert came_s == pytest.approx(list(sequence.due_s))


def test_prefixes_are_found_where_they_are(tmp_path: Path) -> None:
    """Routed by prefix, a prompt that comes again is cached each time; in turn, the second not."""
    loads = [Load(500 * at, words(200, " f"), 2) for at in range(3)]
    cached: dict[str, list[int]] = {}
    for routing in ("prefix-aware", "round-robin"):
        with simulated(tmp_path, routing) as (service, _):
            answers = service.answers(*(load.request for load in loads))
        usages = [answer.chunks[-1]["usage"]["prompt_tokens_details"] for answer in answers]
        cached[routing] = [usage["cached_tokens"] for usage in usages]
    assert cached == {"prefix-aware": [0, 190, 190], "round-robin": [0, 0, 190]}


def test_a_full_queue_is_not_looked_at(tmp_path: Path) -> None:
    """Round robin refuses a request at a full queue though the other engine is idle."""
    full = SMALL.replace("max_num_seqs: 4", "max_num_seqs: 1").replace("waiting: 6", "waiting: 1")
    (tmp_path / "full.yaml").write_text(full)
    tokens = [100, 1, 100, 1, 1, 1]  # to the engines 0 and 1 in turn
    asked = [
        Timed(chat("hi", stream=True), {"X-OUTPUT-LENGTH": str(each)}, at_s=0.5 * at)
        for at, each in enumerate(tokens)
    ]
    with running_simulation(
        engine=tmp_path / "full.yaml", replicas=2, routing="round-robin"
    ) as service:
        statuses = [answer.status for answer in service.answers(*asked)]
    assert statuses == [200, 200, 200, 200, 429, 200]


# --------------------------------------------------------------------------------------
# A real server
# --------------------------------------------------------------------------------------


@shared("module")
def two_of_two(_: Path) -> AbstractContextManager[Server]:
    """Yield a server of two workers with two engines each."""
    return running_server(*args(engine="paper", workers=2, replicas=2, routing="least-waiting"))


def test_metrics_of_each_engine(two_of_two: Server) -> None:
    """Each engine of each worker has a label of its own from the start, and counts requests."""
    cache = "vllm:cache_config_info"
    assert eventually(
        lambda: all(two_of_two.metrics().total(cache, engine=engine) == 1 for engine in "0123")
    )
    assert two_of_two.metrics().total(cache) == 4
    posts = [Post(chat("hi", model="m"), {"X-OUTPUT-LENGTH": "3"})] * 40

    def counts() -> Mapping[str, float]:
        metrics = two_of_two.metrics()
        return {e: metrics.total("vllm:request_success_total", engine=e) for e in "0123"}

    def all_have_served() -> bool:
        """Tell whether each has served; on a busy machine one worker may accept all requests."""
        answers = post_together(two_of_two.address, posts)
        assert {answer.status for answer in answers} == {200}
        return all(counts().values())

    assert eventually(all_have_served)
    assert eventually(lambda: two_of_two.metrics().total("vllm:num_requests_running") == 0)
    assert sum(counts().values()) % len(posts) == 0


# --------------------------------------------------------------------------------------
# Settings
# --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"replicas": 4}, "replicas needs the setting engine"),
        ({"replicas": 1}, "replicas needs the setting engine"),
        ({"routing": "random"}, "routing needs the setting engine"),
        ({"engine": "paper", "replicas": 0}, "replicas=0: Input should be greater than"),
        ({"engine": "paper", "replicas": 65}, "replicas=65: Input should be less than"),
        ({"engine": "paper", "replicas": "2.5"}, "replicas=2.5: Input should be a valid integer"),
        ({"engine": "paper", "routing": "best"}, "routing=best: Input should be 'round-robin'"),
    ],
)
def test_bad_replicas(arguments: Mapping[str, object], message: str) -> None:
    """A number or a policy that cannot be is refused with the setting's name."""
    with pytest.raises(ConfigError) as refusal:
        read_settings(arguments)
    assert message in str(refusal.value)


def test_prefixes_that_nobody_keeps() -> None:
    """Routing by prefixes is refused for an engine without prefix_caching."""
    settings = Settings(engine="paper", replicas=2, routing="prefix-aware")
    with pytest.raises(ConfigError, match=r"'routing': prefix-aware needs .* prefix_caching"):
        read_state(settings)


def test_bad_replicas_stop_the_start() -> None:
    """``bentoml serve`` ends with the setting's name, and without a traceback."""
    message = failed_start("--arg", "replicas=4")
    assert "replicas needs the setting engine" in message
    assert "Traceback" not in message


def test_page_of_policies() -> None:
    """The page on the engine has every policy, and the most replicas are in the settings'."""
    rows = table(page("docs/engine.md").text, "routing")
    assert [name for row in rows for name in names(row[0])] == list(get_args(Policy))
    assert f"up to {MAX_REPLICAS}" in page("docs/settings.md").text
