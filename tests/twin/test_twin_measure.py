"""What a sweep is made of, and what is said of servers that cannot be measured."""

from pathlib import Path

import pytest

from loadtest.twin.client import Client
from loadtest.twin.loads import Design, Measurement, noise, run, unseen
from loadtest.twin.sweep import Arrivals, Known, Load, TwinError, append, read_sweep
from tests.support.chat_stub import running_stub
from tests.support.process import free_port
from tests.support.server import Server
from tests.twin.making import LENGTHS, config, measured, usual_loads


def test_a_sweep_is_kept(tmp_path: Path) -> None:
    """What was appended to a file is what is read from it."""
    path = tmp_path / "sweep.jsonl"
    sweep = measured(config(), usual_loads()[:3], late_ms=0.3)
    append(path, sweep.known)
    for point in sweep.points:
        append(path, point)
    assert read_sweep(path) == sweep


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "line 1: Invalid JSON"),
        ('{"point":{"load":{"requests":1,"prompt_tokens":[5],"output_tokens":0}}}', "output_tok"),
        ('{"known":{"max_num_seqs":0}}', "line 1: known.max_num_seqs: Input should be greater"),
        ('{"others":1}', "line 1: others: Extra inputs are not permitted"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, told: str) -> None:
    """A line that is no sweep's is an error with its number and its field."""
    path = tmp_path / "sweep.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(TwinError) as caught:
        read_sweep(path)
    assert told in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is an error with its path."""
    with pytest.raises(TwinError, match=r"none\.jsonl: No such file"):
        read_sweep(tmp_path / "none.jsonl")


def test_the_first_loads_part_prefill_from_decode() -> None:
    """Each length is asked alone, the batch grows, a prompt comes again, and there is a burst."""
    loads = Design(LENGTHS, 64, 32).first()
    assert {load.prompt_tokens[0] for load in loads if load.clients == 1} == set(LENGTHS)
    assert {8, 16, 64} <= {load.clients for load in loads}
    assert any(load.shared for load in loads)
    assert any(load.arrivals is Arrivals.BURST for load in loads)


def test_the_next_load_is_what_is_least_known() -> None:
    """After one client at each length alone the next load has many, which nothing told of yet."""
    design = Design(LENGTHS, 64, 32)
    alone = [load for load in design.first() if load.clients == 1]
    sweep = measured(config(max_num_seqs=64), alone, late_ms=0.3)
    for load in design.first():
        design.note(sweep.points[0].model_copy(update={"load": load}))
    chosen = design.next(sweep.points, left_s=10_000)
    assert chosen is not None
    assert chosen.clients > 1


def test_no_load_is_begun_that_does_not_fit() -> None:
    """With half a second left, and loads that take more, there is no next one."""
    design = Design(LENGTHS, 64, 32)
    sweep = measured(config(), usual_loads(64), late_ms=0.3)
    assert design.next(sweep.points, left_s=0.1) is None


def test_check_asks_what_no_sweep_had() -> None:
    """Loads of a check have other lengths than a sweep's, some mixed, and all kinds of arrival."""
    loads = unseen(LENGTHS, 64, 32, rate=5.0)
    assert not {length for load in loads for length in load.prompt_tokens} & set(LENGTHS)
    assert {load.arrivals for load in loads} == set(Arrivals)
    assert any(len(load.prompt_tokens) > 1 for load in loads)


def test_noise_is_told() -> None:
    """The same load again, 10 % slower, is told as a difference of 10 %."""
    [point] = measured(config(), usual_loads()[:1], late_ms=0).points
    slower = [
        r.model_copy(
            update={"ttft_ms": 1.1 * r.ttft_ms, "gaps_ms": tuple(1.1 * g for g in r.gaps_ms)}
        )
        for r in point.requests
    ]
    again = point.model_copy(update={"requests": tuple(slower)})
    assert "differed by 10.0% (median)" in (noise([point, again]) or "")
    assert noise([point]) is None


def told_by(url: str) -> str:
    """Return what is said of a server that cannot be measured."""
    with (
        pytest.raises(TwinError) as caught,
        Client(url, "m", log=lambda _: None) as client,
    ):
        client.probe()
    return str(caught.value)


def test_no_address_is_refused() -> None:
    """An address without a scheme is refused with what was expected."""
    with pytest.raises(TwinError, match="--url: expected http://host:port/v1, but got 'here'"):
        Client("here", "m")


def test_a_server_that_is_not_there() -> None:
    """A port where nobody listens is told as such."""
    assert "refused" in told_by(f"http://127.0.0.1:{free_port()}")


def test_a_server_that_refuses() -> None:
    """A 503 is told with its status and its words."""
    with running_stub("http") as stub:
        assert "HTTP 503" in told_by(stub.url)


def test_a_server_that_ends_answers_early() -> None:
    """Where `ignore_eos` has no effect that is said, and no later request has it."""
    said: list[str] = []
    with running_stub() as stub:
        with Client(stub.url, "m", log=said.append) as client:
            known = client.probe()
            client.ask(20, 4)
        assert "ignore_eos" not in stub.bodies[-1]
    assert "ignore_eos has no effect" in " ".join(said)
    assert known.notes == ("the server knows no ignore_eos",)


def test_a_load_that_fails_is_told() -> None:
    """A load whose requests fail, most of them, is an error that names the failure."""
    with running_stub("none", "none", "error") as stub:
        load = Load(clients=2, requests=4, prompt_tokens=(20,), output_tokens=4)
        with Client(stub.url, "m", log=lambda _: None) as client:
            client.probe()
            stub.faults = ("error",)
            with pytest.raises(TwinError, match=r"4 of 4 requests failed: .*out of memory"):
                run(client, load)


def test_prompts_are_as_long_as_asked(server: Server) -> None:
    """Prompts have exactly the lengths asked for, and answers too, by the server's usage."""
    load = Load(clients=2, requests=4, prompt_tokens=(20, 300), output_tokens=3)
    with Client(server.url, "m", log=lambda _: None) as client:
        known = client.probe()
        point = run(client, load)
    assert known.counted_by == "the server's usage"
    assert sorted(r.prompt_tokens for r in point.requests) == [20, 20, 300, 300]
    assert {r.output_tokens for r in point.requests} == {3}


def test_a_sweep_of_another_server_is_not_resumed(tmp_path: Path) -> None:
    """A file that has another server's sweep is refused, and left as it is."""
    path = tmp_path / "sweep.jsonl"
    append(path, Known(url="http://other", model="m"))
    before = path.read_bytes()
    client = Client("http://127.0.0.1:9", "m", log=lambda _: None)
    with pytest.raises(TwinError, match="holds a sweep of m at http://other"):
        Measurement(client, path, Design(LENGTHS, 4, 8), 1).run(Known(url="http://mine", model="m"))
    assert path.read_bytes() == before
