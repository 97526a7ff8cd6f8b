"""Replicas of an engine behind a router, in simulated time."""

import random
import statistics
from collections import Counter
from collections.abc import Sequence

import pytest

from benchmarks.engine.prediction import measure
from benchmarks.engine.simulation import Fleet, Replicas, Simulation
from benchmarks.engine.sizing import Target, fewest, meets
from benchmarks.engine.workload import Prefixes, Workload
from emulator.engine.config import EngineConfig
from emulator.engine.routing import Router, check_policy
from emulator.engine.scheduler import EngineSequence, Scheduler
from emulator.settings import Policy
from tests.engine.test_engine import HOUR_S, ROUND, Seen, engine, note, poisson, prompt

ONE_AT_A_TIME = ROUND.model_copy(update={"max_num_seqs": 1, "max_waiting": 1_000_000})
# 10 + 1 ms and 0.1 ms for each of 500 tokens on average.
MEAN_SERVICE_S = 0.061


def run(policy: Policy, sequences: Sequence[Seen], number: int = 2, **changes: object) -> list[int]:
    """Run requests over replicas of round numbers, and return where each was routed."""
    replicas = Replicas([engine(**changes) for _ in range(number)], policy)
    for step in replicas.run([sequence] for sequence in sequences):
        note(step)
    return replicas.routed


# --------------------------------------------------------------------------------------
# Policies
# --------------------------------------------------------------------------------------


def test_round_robin_goes_in_turn() -> None:
    """Each request goes to the next engine, whatever it has to do."""
    sequences = [Seen(100, tokens) for tokens in (100, 1, 1, 1, 1)]
    assert run("round-robin", sequences, number=3) == [0, 1, 2, 0, 1]


def test_least_waiting_looks_at_the_queues() -> None:
    """A request goes to the shortest queue, then to the smaller batch, then in turn."""
    # The first goes on until the end; of the others each is done after 21 ms if it is alone.
    sequences = [Seen(100, 100), Seen(100, 1, 1), Seen(100, 1, 30), Seen(100, 1, 60)]
    # At 61 ms each engine has one in its batch, and it is the first one's turn; then one waits.
    sequences += [Seen(100, 1, 61), Seen(100, 1, 62)]
    assert run("least-waiting", sequences) == [0, 1, 1, 1, 0, 1]


def test_a_queue_counts_before_a_batch() -> None:
    """An engine with three in its batch is chosen before one with a single one and one waiting."""
    queue, batch = engine(), engine()
    queue.submit([Seen(100, 9)])
    batch.submit([Seen(100, 9), Seen(100, 9), Seen(100, 9)])
    for scheduler in (queue, batch):
        scheduler.start_step(0)
    queue.submit([Seen(100, 9)])
    assert Router([queue, batch], "least-waiting").choose() == 1
    assert Router([batch, queue], "least-waiting").choose() == 0


def test_two_replicas_on_paper() -> None:
    """Four prompts at once on two engines, one at a time each: the second pair waits for 21 ms."""
    sequences = [Seen(100, 1) for _ in range(4)]
    assert run("least-waiting", sequences, max_num_seqs=1) == [0, 1, 0, 1]
    assert [s.due_ms for s in sequences] == [pytest.approx([ms]) for ms in (21, 21, 42, 42)]


def test_prefix_aware_goes_where_the_prefix_is() -> None:
    """A prompt goes to the engine that has its beginning, and a new one to the least loaded."""
    first = Seen(100, 1, keys=prompt(("a", 90), ("one", 10)))
    other = Seen(100, 50, 1, prompt(("b", 100)))
    again = Seen(100, 1, 100, prompt(("b", 90), ("two", 10)))
    more = Seen(100, 1, 101, prompt(("a", 90), ("two", 10)))
    new = Seen(100, 1, 200, prompt(("c", 100)))
    order = [first, other, again, more, new]
    assert run("prefix-aware", order, prefix_caching=True) == [0, 1, 1, 0, 0]
    assert (again.cached_tokens, more.cached_tokens, new.cached_tokens) == (90, 90, 0)


def test_the_longest_prefix_wins() -> None:
    """Of two engines that have a prompt's beginning the one with more of it is chosen."""
    short = Seen(100, 1, keys=prompt(("a", 50), ("one", 50)))
    long = Seen(100, 1, 1, keys=prompt(("b", 100)))
    schedulers = [engine(prefix_caching=True) for _ in range(2)]
    for scheduler, sequence in zip(schedulers, (short, long), strict=True):
        list(Simulation(scheduler).run([[sequence]]))
    more = Seen(80, 1, 500, keys=prompt(("a", 80)))
    list(Simulation(schedulers[1]).run([[more]]))
    router = Router(schedulers, "prefix-aware")
    assert router.choose(prompt(("a", 100))) == 1
    assert router.choose(prompt(("a", 50), ("one", 50))) == 0


def test_a_long_queue_outweighs_a_prefix() -> None:
    """With more than four more waiting where the prefix is, the shortest queue is chosen."""
    keys = prompt(("a", 100))
    first = Seen(100, 1, keys=keys)
    busy = [Seen(100, 1, 100, keys) for _ in range(7)]
    routed = run("prefix-aware", [first, *busy], max_num_seqs=1, prefix_caching=True)
    # All seven come at once: when five wait at the first, the next goes to the second, and with
    # one waiting there the fifth more is allowed again.
    assert routed == [0, 0, 0, 0, 0, 0, 1, 0]


def test_random_is_even_and_repeats() -> None:
    """Random routing gives each engine its part, and the same again with the same seed."""
    schedulers = [engine() for _ in range(4)]
    first, again, other = (
        [router.choose() for _ in range(4_000)]
        for router in (Router(schedulers, "random", seed) for seed in (1, 1, 2))
    )
    assert first == again
    assert first != other
    assert min(Counter(first).values()) > 900


def test_prefix_aware_needs_prefixes() -> None:
    """An engine that keeps no prefixes is refused for routing by them, and for no other."""
    with pytest.raises(ValueError, match="prefix-aware needs an engine with prefix_caching"):
        check_policy("prefix-aware", ROUND)
    check_policy("prefix-aware", ROUND.model_copy(update={"prefix_caching": True}))
    check_policy("random", ROUND)


# --------------------------------------------------------------------------------------
# Replicas against engines apart, and policies against each other
# --------------------------------------------------------------------------------------


def drawn(arrivals_s: Sequence[float], seed: int, output_tokens: int = 1) -> list[Seen]:
    """Return requests of 1 to 1,000 tokens, and up to so many of the answer."""
    rng = random.Random(seed)
    return [
        Seen(rng.randint(1, 1000), rng.randint(1, output_tokens), at_s * 1000)
        for at_s in arrivals_s
    ]


def test_one_replica_is_the_engine() -> None:
    """One replica behind a router gives each token when the engine alone does."""
    arrivals_s = list(poisson(10, 100, seed=1))
    alone, routed = drawn(arrivals_s, 2, 50), drawn(arrivals_s, 2, 50)
    for step in Simulation(engine(request_overhead_ms=6)).run([s] for s in alone):
        note(step)
    assert set(run("least-waiting", routed, number=1, request_overhead_ms=6)) == {0}
    assert [s.due_ms for s in routed] == [s.due_ms for s in alone]


@pytest.mark.parametrize("policy", ["round-robin", "least-waiting", "random"])
def test_replicas_do_not_touch(policy: Policy) -> None:
    """Each of four replicas does with its requests what an engine of its own does with them."""
    arrivals_s = list(poisson(40, 60, seed=3))
    together, apart = drawn(arrivals_s, 4, 30), drawn(arrivals_s, 4, 30)
    routed = run(policy, together, number=4)
    for number in range(4):
        own = [s for s, chosen in zip(apart, routed, strict=True) if chosen == number]
        for step in Simulation(engine()).run([s] for s in own):
            note(step)
    assert [s.due_ms for s in together] == [s.due_ms for s in apart]


def mean_wait_s(sequences: Sequence[EngineSequence]) -> float:
    """Return the mean time from arrival to admission."""
    return statistics.fmean((s.admitted_s or 0) - s.arrival_s for s in sequences)


def test_random_routing_splits_a_poisson_process() -> None:
    """Four replicas at random have the mean wait of four engines with arrivals of their own.

    Both are that of an M/G/1 queue: rate * E(S^2) / (2 (1 - rate * E(S))), by Pollaczek and
    Khinchine.
    """
    rate = 0.6 / MEAN_SERVICE_S
    together = drawn(list(poisson(4 * rate, HOUR_S / 2, seed=5)), seed=6)
    replicas = Replicas([Scheduler[Seen](ONE_AT_A_TIME) for _ in range(4)], "random", seed=7)
    for _ in replicas.run([s] for s in together):
        pass
    apart: list[Seen] = []
    for number in range(4):
        own = drawn(list(poisson(rate, HOUR_S / 2, seed=10 + number)), seed=20 + number)
        for _ in Simulation(Scheduler[Seen](ONE_AT_A_TIME)).run([s] for s in own):
            pass
        apart += own
    services_s = [0.011 + 0.0001 * tokens for tokens in range(1, 1001)]
    mean_s, square = statistics.fmean(services_s), statistics.fmean(s * s for s in services_s)
    expected_s = rate * square / (2 * (1 - rate * mean_s))
    assert mean_wait_s(apart) == pytest.approx(expected_s, rel=0.03)
    assert mean_wait_s(together) == pytest.approx(expected_s, rel=0.03)


def waits_s(policy: Policy, seed: int) -> float:
    """Return the mean wait of 100 requests over four replicas, each one at a time and 80 % busy."""
    rate = 4 * 0.8 / MEAN_SERVICE_S
    sequences = drawn(list(poisson(rate, 100 / rate, seed)), seed)
    replicas = Replicas([Scheduler[Seen](ONE_AT_A_TIME) for _ in range(4)], policy, seed)
    for _ in replicas.run([sequence] for sequence in sequences):
        pass
    return mean_wait_s(sequences)


def test_least_waiting_beats_round_robin() -> None:
    """Over 1,000 seeds its mean wait is below round robin's, and it is in 95 % of them."""
    pairs = [(waits_s("least-waiting", seed), waits_s("round-robin", seed)) for seed in range(1000)]
    shortest, in_turn = (statistics.fmean(waits) for waits in zip(*pairs, strict=True))
    assert shortest < 0.9 * in_turn
    assert sum(least < other for least, other in pairs) >= 950


def test_prefix_aware_finds_more() -> None:
    """With more prefixes than one cache holds, routing by them finds more than least waiting."""
    config = ROUND.model_copy(
        update={"prefix_caching": True, "kv_blocks": 300, "max_model_len": 3000}
    )
    workload = Workload(20, 5, prefixes=Prefixes(40, 200, config.block_size))

    def found(policy: Policy) -> float:
        requests = workload.requests(20, 60, random.Random(8))
        for _ in Fleet(config, 4, policy).replicas().run([request] for request in requests):
            pass
        return sum(r.cached_tokens for r in requests) / sum(r.prompt_tokens for r in requests)

    assert found("prefix-aware") > 0.8
    assert found("least-waiting") < 0.5


# --------------------------------------------------------------------------------------
# How many replicas
# --------------------------------------------------------------------------------------

LOAD = Workload(200, 50)
FEW = ROUND.model_copy(update={"max_num_seqs": 4, "max_waiting": 50})


@pytest.mark.parametrize("needed", [1, 2, 3, 7, 8, 9, 63, 64])
def test_bisection(needed: int) -> None:
    """The fewest that suffice are found with about twice the logarithm of their number of tries."""
    tried = []

    def suffices(number: int) -> bool:
        tried.append(number)
        return number >= needed

    assert fewest(suffices, most=64) == needed
    assert len(tried) <= 2 * needed.bit_length() + 1


def test_no_number_suffices() -> None:
    """A target that no number of replicas meets has no answer."""
    assert fewest(lambda _: False, most=100) is None


@pytest.mark.parametrize("policy", ["round-robin", "least-waiting", "random"])
@pytest.mark.parametrize(("config", "rate"), [(FEW, 12), (FEW, 30), (ROUND, 40)])
def test_as_many_replicas_as_brute_force_finds(
    config: EngineConfig, rate: float, policy: Policy
) -> None:
    """The number is the first of 1, 2, 3, ... with 99 % of first tokens in 100 ms, one by one."""

    def in_time(number: int) -> float:
        requests = LOAD.requests(rate, 20, random.Random(1))
        for _ in Fleet(config, number, policy).replicas().run([request] for request in requests):
            pass
        good = [r.first_token_s and r.first_token_s - r.arrival_s <= 0.1 for r in requests]
        return sum(map(bool, good)) / len(good)

    expected = next(number for number in range(1, 50) if in_time(number) >= 0.99)
    target = Target(100)
    found = fewest(lambda number: meets(Fleet(config, number, policy), LOAD, rate, 20, target))
    assert found == expected > 1


def test_more_replicas_shorten_the_queue() -> None:
    """A load that one engine cannot do waits for minutes there, and not at two."""
    one, two = (measure(Fleet(ROUND, number), LOAD, 12, 1, 60) for number in (1, 2))
    assert one.ttft_p99_ms > 10 * two.ttft_p99_ms
    assert one.waiting > 10
    assert two.waiting < 1
