"""The pages held against the code: what they name exists, and what exists is in them."""

import ast
import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import Counter, Gauge, Histogram
from pydantic import BaseModel

# Importing locust would replace the sockets and threads of the other tests in this process.
os.environ["LOCUST_SKIP_MONKEY_PATCH"] = "1"

from locust.argument_parser import get_empty_argument_parser, setup_parser_arguments

from emulator import metrics
from emulator.apis.responses.schema.moved import GUIDED, MOVED
from emulator.apis.responses.schema.request import ResponsesRequest
from emulator.faults.asking import (
    DEFAULT_SLICE_BYTES,
    DEFAULT_STATUS,
    FaultHeaders,
    header_contradiction,
)
from emulator.faults.codes import CODES
from emulator.faults.kinds import KINDS
from emulator.settings import Settings
from loadtest.options import Options, add_options, flag
from openai_api_emulator.running.options import parse
from schemas import (
    ChatCompletionRequest,
    CompletionRequest,
    EmbeddingRequest,
    EmulationHeaders,
    ModerationRequest,
    StreamOptions,
)
from tests.support.documents import Page, names, page, pages, table
from tests.support.server import REPOSITORY, bentoml, clean_environment
from tests.support.wire import CHAT_PATH, chat, headers, token_count

MOST_LINES_OF_README = 230
PAGES = pages()
README = page("README.md")
EMULATION_HEADERS = EmulationHeaders.model_json_schema()["properties"]
FAULT_HEADERS = FaultHeaders.model_json_schema()["properties"]


def all_text() -> str:
    """Return the text of all pages."""
    return "\n".join(one.text for one in PAGES)


def modules() -> list[Path]:
    """Return the Python files at the root and in the folders there, tests aside."""
    files = [*REPOSITORY.glob("*.py"), *REPOSITORY.glob("[!.]*/**/*.py")]
    test = re.compile(r"conftest|test_")
    return [
        file
        for file in files
        if file.relative_to(REPOSITORY).parts[0] != "tests" and not test.match(file.name)
    ]


# --------------------------------------------------------------------------------------
# Pages and links
# --------------------------------------------------------------------------------------


def test_readme_is_short() -> None:
    """The README is what a newcomer reads; reference belongs in docs/."""
    assert len(README.text.splitlines()) <= MOST_LINES_OF_README


def test_readme_links_every_page() -> None:
    """Every page of docs/ is one step away from the README."""
    linked = {link.partition("#")[0] for link in README.links}
    assert {one.name for one in PAGES} - {README.name} <= linked


@pytest.mark.parametrize("one", PAGES, ids=lambda one: one.name)
def test_links_lead_somewhere(one: Page) -> None:
    """Every relative link names a file, and a heading of it if it names one."""
    for link in one.links:
        target, _, anchor = link.partition("#")
        path = (one.path.parent / target).resolve() if target else one.path
        assert path.exists(), link
        assert not anchor or anchor in Page(path).anchors, link


@pytest.mark.parametrize("one", PAGES, ids=lambda one: one.name)
def test_named_files_exist(one: Page) -> None:
    """Every file and folder of the repository that a page names is there."""
    roots = {path.name for path in REPOSITORY.iterdir()}
    named = [name for name in names(one.prose) if name.split("/")[0] in roots and " " not in name]
    assert [name for name in named if not (REPOSITORY / name).exists()] == []


def test_architecture_names_what_exists() -> None:
    """Every class and function of the page on the architecture is in the module before it."""
    module, named = "", []
    for name in names(page("docs/architecture.md").prose):
        if name.endswith(".py"):
            module = name
        elif re.fullmatch(r"_?[A-Za-z]\w*(\.\w+)?", name) and name != "send":
            named.append((module, name))
    assert len(named) > 40
    assert [(module, name) for module, name in named if name not in definitions(module)] == []


@cache
def definitions(module: str) -> set[str]:
    """Return the functions and classes of a module, and ``Class.method`` of each method."""
    found = set()
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.parse((REPOSITORY / module).read_text()).body:
        if isinstance(node, kinds):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{part.name}" for part in node.body if isinstance(part, kinds)}
    return found


def test_table_of_rooms_is_all_there_is() -> None:
    """The table of the rooms names every module at the root and every folder of modules."""
    named = {name.rstrip("/") for row in table(README.text, "", "") for name in names(row[0])}
    assert [name for name in named if not (REPOSITORY / name).exists()] == []
    assert {file.relative_to(REPOSITORY).parts[0] for file in modules()} <= named


# --------------------------------------------------------------------------------------
# Command lines
# --------------------------------------------------------------------------------------


def scenarios() -> dict[str, list[str]]:
    """Return the tags of each user class of the locustfile."""
    tree = ast.parse((REPOSITORY / "locustfile.py").read_text())
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef))
    return {
        node.name: sorted(set(re.findall(r"tag\('([^']+)'\)", ast.unparse(node))))
        for node in classes
    }


def check_pip(words: Sequence[str]) -> None:
    """``pip install`` is of this repository, or ``-r`` names a file."""
    if list(words[1:]) != ["install", "."]:
        assert list(words[1:3]) == ["install", "-r"]
        assert (REPOSITORY / words[3]).is_file()


def check_pytest(words: Sequence[str]) -> None:
    """Pytest is given files, and markers that are registered."""
    configuration = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    markers = configuration["tool"]["pytest"]["ini_options"].get("markers", [])
    arguments = list(words[1:])
    if "-m" in arguments:
        at = arguments.index("-m")
        assert arguments[at + 1] in {marker.partition(":")[0] for marker in markers}
        del arguments[at : at + 2]
    assert all((REPOSITORY / argument).exists() for argument in arguments)


def check_python(words: Sequence[str]) -> None:
    """A script exists, and so does each option that it is given."""
    script = f"{words[2].replace('.', '/')}.py" if words[1] == "-m" else words[1]
    if not (REPOSITORY / script).exists():  # a package
        script = script.replace(".py", "/__main__.py")
    source = (REPOSITORY / script).read_text()
    if script.startswith("benchmarks/"):  # which share some
        source += (REPOSITORY / "benchmarks" / "kit" / "server.py").read_text()
    if script == "twin.py":  # a door
        source = (REPOSITORY / "loadtest" / "twin" / "commands.py").read_text()
    options = [word for word in words[2:] if word.startswith("--")]
    assert [option for option in options if f'"{option}"' not in source] == []


def check_bentoml(words: Sequence[str]) -> None:
    """A command of BentoML exists, has these options, and is given the service or its bento."""
    options = [word for word in words[2:] if word.startswith("-")]
    assert set(options) <= options_of_bentoml(words[1])
    targets = [word for word in words[2:] if ":" in word and "=" not in word]
    assert set(targets) <= {"service.py:OpenAIEmulator", "openai_emulator:latest"}


@cache
def options_of_bentoml(command: str) -> set[str]:
    """Return the options of a command of BentoML."""
    told = subprocess.run(  # noqa: S603 - our own command line
        bentoml(command, "--help"),
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return set(re.findall(r"(?<![\w-])--?\w[\w-]*", told.stdout))


def check_curl(words: Sequence[str]) -> None:
    """A request is one that the emulator reads."""
    if any("/emulator" in word for word in words):
        return  # tests/control/test_control_documents.py sends these
    _, sent_headers, body = parse_curl(words)
    emulation = {name: value for name, value in sent_headers.items() if name.startswith("X-")}
    assert EmulationHeaders.model_validate(emulation).model_fields_set
    assert header_contradiction(FaultHeaders.model_validate(emulation)) is None or not any(
        name in FAULT_HEADERS for name in emulation
    )
    assert set(emulation) <= {*EMULATION_HEADERS, *FAULT_HEADERS}
    ChatCompletionRequest.model_validate(body)


def parse_curl(words: Sequence[str]) -> tuple[str, dict[str, str], Any]:
    """Return a curl line's address, headers and JSON."""
    (url,) = (word for word in words if word.startswith("http://"))
    pairs = [value for name, value in pairwise(words) if name == "-H"]
    sent_headers = dict(pair.split(": ", 1) for pair in pairs)
    return url, sent_headers, json.loads(words[words.index("-d") + 1])


def check_locust(words: Sequence[str]) -> None:
    """Locust takes all options, and the classes and tags are scenarios."""
    parser = get_empty_argument_parser(default_config_files=[])
    setup_parser_arguments(parser)  # type: ignore[no-untyped-call]  # locust's
    add_options(parser)
    given, unknown = parser.parse_known_args([word for word in words[1:] if word != "--help"])
    assert unknown == []
    assert set(given.user_classes) <= set(scenarios())
    assert set(given.tags or ()) <= {tag for tags in scenarios().values() for tag in tags}
    assert (REPOSITORY / given.locustfile).is_file()


def check_paths(words: Sequence[str]) -> None:
    """What is named after -f or -- exists."""
    at = next((words.index(option) for option in ("-f", "--") if option in words), None)
    assert at is None or (REPOSITORY / words[at + 1]).exists()


def check_nothing(words: Sequence[str]) -> None:
    """A tool that is run without names of ours."""
    assert not [word for word in words[1:] if "/" in word]


def check_package(words: Sequence[str]) -> None:
    """The package's command takes all options."""
    if "--help" not in words:
        parse(words[1:])


def check_script(words: Sequence[str]) -> None:
    """A script of ours can be run."""
    assert os.access(REPOSITORY / words[0], os.X_OK)


CHECKS: dict[str, Callable[[Sequence[str]], None]] = {
    "bentoml": check_bentoml,
    "curl": check_curl,
    "docker": check_paths,
    "git": check_paths,
    "kubectl": check_paths,
    "locust": check_locust,
    "mypy": check_nothing,
    "openai-api-emulator": check_package,
    "pip": check_pip,
    "pytest": check_pytest,
    "python": check_python,
    "ruff": check_nothing,
    "tests/clients/run": check_script,
}


@pytest.mark.parametrize("one", PAGES, ids=lambda one: one.name)
def test_commands_exist(one: Page) -> None:
    """Every command line names programs, options, files and scenarios that exist."""
    for words in one.commands:
        CHECKS[words[0]](words)


def test_readme_has_the_two_commands() -> None:
    """The README's first block runs the service and its tests, each in one line."""
    lines = README.blocks("bash")[0].splitlines()
    install = "pip install -r requirements.txt && "
    commands, comments = zip(*(line.split("#", 1) for line in lines), strict=True)
    assert [command.strip() for command in commands] == [
        f"{install}bentoml serve service.py:OpenAIEmulator",
        f"{install}pytest",
    ]
    assert [comment.split(":")[0].strip() for comment in comments] == ["run", "test"]


def test_example_streams_what_the_readme_shows(http: httpx.Client) -> None:
    """The README's request is answered as the README shows, times and words aside."""
    (words,) = (words for words in README.commands if words[0] == "curl")
    url, sent_headers, body = parse_curl(words)
    answer_shown = README.blocks("")[0]
    shown = answer_shown.split("\n\n")
    answer = http.post(httpx.URL(url).path, headers=sent_headers, json=body)
    sent = answer.text.removesuffix("\n\n").split("\n\n")
    assert len(sent) == len(shown)
    assert sent[-1] == shown[-1].strip() == "data: [DONE]"
    first, expected = (json.loads(event[0].removeprefix("data: ")) for event in (sent, shown))
    assert list(first) == list(expected)
    assert first["choices"] == expected["choices"]
    deltas = [
        [*json.loads(event.removeprefix("data: "))["choices"][0]["delta"]] for event in sent[:-1]
    ]
    assert deltas == [
        re.findall(r'"(\w+)":', line) for line in re.findall(r'"delta":{(.*?)}', answer_shown)
    ]


def test_sdk_example_runs(base_url: str) -> None:
    """The README's Python example prints as many tokens as it asks for."""
    (example,) = README.blocks("python")
    ended = subprocess.run(  # noqa: S603 - our own example
        [sys.executable, "-c", example.replace("http://localhost:3000", base_url)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert token_count(ended.stdout, "cl100k_base") == 30


# --------------------------------------------------------------------------------------
# Endpoints and headers
# --------------------------------------------------------------------------------------


def test_endpoints_are_served(http: httpx.Client) -> None:
    """Every endpoint of the README's table answers, and every path of the API is in it."""
    named = set()
    for endpoint, *_ in table(README.text, "endpoint"):
        method = "GET"
        for name in names(endpoint):
            method, path = name.split() if " " in name else (method, name)
            answer = http.request(
                method, path.replace("{id}", "gpt-4"), json={} if method == "POST" else None
            )
            expected = 404 if "/responses/{id}" in path else 400 if method == "POST" else 200
            assert answer.status_code == expected, name
            named.add(path.replace("{id}", "{}"))
    served = http.get("/openapi.json").json()["paths"]
    rows = table(page("docs/control.md").text, "request", "what it does")
    named |= {re.sub(r"{\w+}", "{}", name.split()[1]) for row in rows for name in names(row[0])}
    assert {re.sub(r"{\w+}", "{}", path) for path in served} <= named


def default_of(header: str) -> str:
    """Return what counts without a header, as the table has it."""
    name = next(n for n, f in EmulationHeaders.model_fields.items() if f.alias == header)
    default = EmulationHeaders.model_fields[name].default
    if default is None and name in Settings.model_fields:
        default = Settings.model_fields[name].default
    return as_text(default)


def as_text(default: object) -> str:
    """Return a default as the tables have it."""
    if isinstance(default, bool):
        return str(default).lower()
    return "none" if default is None or default == {} else str(default)


def test_table_of_headers_is_the_codes() -> None:
    """The README's table has every header, with its range and its default."""
    rows = table(README.text, "header", "unit", "range", "default")
    shown: dict[str, list[str]] = {
        name: row for row in rows for name in names(row[0]) if name.startswith("X-")
    }
    assert set(shown) == set(EMULATION_HEADERS)
    for name, (_, _, range_, default) in shown.items():
        (schema,) = (
            variant
            for variant in EMULATION_HEADERS[name].get("anyOf", [EMULATION_HEADERS[name]])
            if variant["type"] != "null"
        )
        limits = f"{schema['minimum']:g} to {schema['maximum']}" if "minimum" in schema else ""
        assert range_ == limits.replace(".0", ""), name
        expected = {
            "X-REASONING-LENGTH": "0, or by `reasoning_effort`",
            "X-OPTIONAL": "fill, omit in calls that are not strict",
            "X-EMULATION-STRICT": "by the setting `unmatched`",
        }
        assert default == expected.get(name, default_of(name)), name


def test_every_named_header_exists() -> None:
    """No page names an X-* header that the code does not read."""
    assert set(re.findall(r"\bX-[A-Z]+(?:-[A-Z]+)*\b", all_text())) <= {
        *EMULATION_HEADERS,
        *FAULT_HEADERS,
        "X-FAULT",  # the beginnings of those
        "X-EMULATION",
    }


def test_table_of_kinds_is_the_registry() -> None:
    """The table has every kind of failure, and says what the registry says that it does."""
    rows = table(page("docs/failures.md").text, "kind", "stream")
    assert rows == [[f"`{k.name}`", k.on_streams, k.on_wholes] for k in KINDS.values()]


def test_clients_are_told_of_every_kind() -> None:
    """The tables of what clients make of failures have every kind, where there is one."""
    text = page("docs/failures.md").text
    for streamed, title in enumerate(("Whole answers:", "## What clients")):
        rows = table(text.partition(title)[2].partition("\n\nWhole")[0], "kind")
        kinds = [
            kind.name
            for kind in KINDS.values()
            if kind.fits(stream=bool(streamed), says_failed=False)  # they are asked for chats
        ]
        assert [names(row[0])[0] for row in rows] == kinds


def test_table_of_fault_headers_is_the_codes() -> None:
    """The table has every X-FAULT-* header, with its range and, where it has one, its default."""
    rows = table(page("docs/failures.md").text, "header", "range", "default")
    shown = {name: row for row in rows for name in names(row[0]) if name in FAULT_HEADERS}
    assert set(shown) == set(FAULT_HEADERS)
    defaults = {
        "X-FAULT-STATUS": "that of the code, or 500",
        "X-FAULT-SLICE-BYTES": 7,
        "X-FAULT-PROBABILITY": 1,
    }
    assert (DEFAULT_STATUS, DEFAULT_SLICE_BYTES) == (500, 7)
    for name, (_, range_, default) in shown.items():
        variants = FAULT_HEADERS[name].get("anyOf", [FAULT_HEADERS[name]])
        limits = next(variant for variant in variants if variant["type"] != "null")
        is_number = "minimum" in limits
        assert range_ == (f"{limits['minimum']:g} to {limits['maximum']:.0f}" if is_number else "")
        assert name not in defaults or default == str(defaults[name])


def test_table_of_codes_is_the_codes() -> None:
    """The table has every code, with its status, its type and whether there may be a wait."""
    rows = table(page("docs/failures.md").text, "code", "status", "type")
    assert rows == [
        [f"`{name}`", str(c.status), f"`{c.type}`", "if asked for" if c.waits else "never"]
        for name, c in CODES.items()
    ]


# --------------------------------------------------------------------------------------
# Settings
# --------------------------------------------------------------------------------------


def test_table_of_settings_is_the_codes() -> None:
    """The table has every setting, with its default."""
    shown: dict[str, str] = {}
    for setting, default, _ in table(page("docs/settings.md").text, "setting", "default"):
        of_row = names(setting)
        shown |= zip(of_row, default.split(", ", len(of_row) - 1), strict=True)
    in_words = {
        "models": "the ten of the list",
        "workers": "one a core",
        "cors_origins": "any",
        "vllm_flags": "none",
    }
    assert shown == {
        name: in_words.get(name, as_text(field.default))
        for name, field in Settings.model_fields.items()
    }
    assert len(Settings().models) == 10


def test_every_named_setting_exists() -> None:
    """Every ``--arg`` of a page names a setting."""
    named = re.findall(r"--arg (\w+)=", all_text())
    assert named
    assert set(named) <= set(Settings.model_fields)


# --------------------------------------------------------------------------------------
# Metrics, report, errors
# --------------------------------------------------------------------------------------


def metric_labels() -> dict[str, tuple[str, ...]]:
    """Return the labels of each metric of ours, by the name that /metrics has."""
    ours = [m for m in vars(metrics).values() if isinstance(m, Counter | Gauge | Histogram)]
    return {
        f"{metric._name}_total" if isinstance(metric, Counter) else metric._name: tuple(
            metric._labelnames
        )
        for metric in ours
        if not metric._labelvalues
    }


def test_table_of_metrics_is_the_codes() -> None:
    """The table has every metric with its labels, and says which are histograms."""
    rows = table(page("docs/metrics.md").text, "metric")
    shown = {name: what for metric, what in rows for name in names(metric)}
    assert set(shown) == set(metric_labels())
    for name, labels in metric_labels().items():
        assert shown[name].startswith("histogram: ") == name.endswith("_seconds")
        assert set(labels) <= set(names(shown[name])), name


def test_every_named_metric_exists() -> None:
    """No page names a metric that /metrics does not have."""
    named = set(re.findall(r"`(openai_emulator_\w+)`", all_text()))
    assert named <= set(metric_labels())


def test_report_is_as_shown(http: httpx.Client) -> None:
    """A report has the figures of the example, and the table explains each."""
    (example,) = page("docs/clock.md").blocks("json")
    shown = json.loads("{" + example + "}")["emulation"]
    report = {**headers(1, 1, 3), "X-EMULATION-REPORT": "true"}
    sent = http.post(CHAT_PATH, json=chat(), headers=report).json()["emulation"]
    assert shapes(sent) == shapes(shown)
    rows = table(page("docs/clock.md").text, "figure, in ms")
    assert {name.split(".")[0] for row in rows for name in names(row[0])} >= set(sent)


def shapes(report: dict[str, Any]) -> dict[str, Any]:
    """Return the names of a report's figures."""
    return {name: [*value] if isinstance(value, dict) else None for name, value in report.items()}


def test_every_named_variable_is_a_setting() -> None:
    """Every variable of a page with the settings' prefix is one, but those said to be none."""
    none = {"EMULATOR_URL", "EMULATOR_SERVICE_HOST", "EMULATOR_PORT"}
    named = set(re.findall(r"(?<!\w)EMULATOR_[A-Z0-9_]+", all_text())) - none
    assert named
    assert {name.removeprefix("EMULATOR_").lower() for name in named} <= set(Settings.model_fields)


def test_every_named_error_exists() -> None:
    """Every error code that a page names stands in the code."""
    code = "\n".join(file.read_text() for file in modules())
    named = set(re.findall(r"(?:code|\b[45]\d\d) `(\w+)`", all_text()))
    assert "timeout_exceeded" in named
    assert [name for name in named if f'"{name}"' not in code] == []


# --------------------------------------------------------------------------------------
# Bounds
# --------------------------------------------------------------------------------------


def constants(module: str) -> dict[str, object]:
    """Return the constants at the top of a module whose values are written out."""
    found: dict[str, object] = {}
    for node in ast.parse((REPOSITORY / module).read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            with contextlib.suppress(TypeError, ValueError):
                found[node.targets[0].id] = number(node.value)
    return found


def number(node: ast.expr) -> object:
    """Return the value of a number or of a power.

    Raises:
        ValueError: It is something else.
    """
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return ast.literal_eval(node.left) ** ast.literal_eval(node.right)
    return ast.literal_eval(node)


def test_table_of_bounds_is_the_codes() -> None:
    """Every bound of the page on security has the figure of the code, or of a setting's default."""
    rows = table(page("SECURITY.md").text, "bound", "figure")
    assert len(rows) > 10
    for bound, figure, where in rows:
        *modules_, name = names(where)
        value = constants(modules_[0])[name] if modules_ else getattr(Settings(), name)
        assert float(figure.split()[0].replace(",", "")) == value, bound


# --------------------------------------------------------------------------------------
# Parameters
# --------------------------------------------------------------------------------------


def parameter_rows() -> dict[str, list[str]]:
    """Return the row of each parameter of a chat, those of ``stream_options`` with their path."""
    rows = table(page("docs/parameters.md").text, "parameter", "type and range")
    known = (row for row in rows if not row[0].startswith("anything else"))
    return {name: row for row in known for name in names(row[0])}


def test_table_of_parameters_is_the_codes() -> None:
    """The table has every parameter, and accepts anything where the code takes anything."""
    options = {f"stream_options.{name}" for name in StreamOptions.model_fields}
    fields = ChatCompletionRequest.model_fields
    rows = parameter_rows()
    assert set(rows) == (set(fields) - {"stream_options"}) | options
    assert {row[2] for row in rows.values()} == {"honoured", "validated", "accepted"}
    accepted = {name for name, row in rows.items() if row[2] == "accepted"}
    assert accepted == {name for name, field in fields.items() if field.annotation is Any}


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("docs/responses.md", ResponsesRequest),
        ("docs/embeddings.md", EmbeddingRequest),
        ("docs/moderations.md", ModerationRequest),
    ],
)
def test_other_tables_of_parameters_are_the_codes(name: str, model: type[BaseModel]) -> None:
    """The other tables have every parameter, and accept anything where the code does."""
    rows = table(page(name).text, "field", "type and range")
    known = {field: row[2] for row in rows if row[0] != "anything else" for field in names(row[0])}
    assert set(known) == set(model.model_fields)
    assert set(known.values()) <= {"honoured", "validated", "accepted"}
    accepted = {field for field, word in known.items() if word == "accepted"}
    assert accepted == {f for f, info in model.model_fields.items() if info.annotation is Any}


def test_table_of_moved_parameters_is_the_codes() -> None:
    """The table has every parameter of chats that Responses refuse, and what to use instead."""
    rows = table(page("docs/responses.md").text, "of chats", "in Responses")
    shown = {name: names(right)[0] for left, right in rows for name in names(left)}
    assert shown == MOVED | dict.fromkeys(GUIDED, "text.format")


def limits(schema: object) -> set[tuple[float, float]]:
    """Return every range of a number in a schema, references aside."""
    if isinstance(schema, dict):
        own = (
            {(schema["minimum"], schema["maximum"])}
            if {"minimum", "maximum"} <= set(schema)
            else set()
        )
        return own.union(*(limits(value) for value in schema.values()))
    return set().union(*map(limits, schema)) if isinstance(schema, list) else set()


def values(schema: object) -> set[str]:
    """Return every value that a schema lists, references aside."""
    if isinstance(schema, dict):
        return set(schema.get("enum", ())).union(*(values(value) for value in schema.values()))
    return set().union(*map(values, schema)) if isinstance(schema, list) else set()


def test_ranges_of_parameters_are_the_codes() -> None:
    """The table has every range and every list of values that the code checks, and no other."""
    properties = ChatCompletionRequest.model_json_schema()["properties"]
    for name, row in parameter_rows().items():
        if "." in name or name == "emulation":  # the README has the ranges of headers
            continue
        of_row = [properties[other] for other in names(row[0])]
        shown = {
            (float(a), float(b)) for a, b in re.findall(r"(-?\d+)\.\.(\d+)(?! strings)", row[1])
        }
        checked = {(-(2**63), 2**63 - 1)} if row[1] == "int64" else shown
        assert limits(of_row) == checked, name
        assert {str(value) for value in values(properties[name])} <= set(row[1].split(", ")), name


def test_legacy_parameters_are_the_codes() -> None:
    """The legacy form's parameters are all named, and no other."""
    section = page("docs/parameters.md").section("Legacy completions")
    lists = section.partition("Honoured:")[2].replace(
        "the penalties", "`frequency_penalty`, `presence_penalty`"
    )
    of_list = [name for name in names(lists) if name != "n"] + ["n", "prompt"]
    fields: dict[str, Any] = CompletionRequest.model_fields
    assert sorted(of_list) == sorted(fields)
    shown = {(float(low), float(high)) for low, high in re.findall(r"\((\d+)\.\.(\d+)", lists)}
    assert shown == {
        limit
        for name in ("best_of", "logprobs")
        for limit in limits(schema_of(CompletionRequest, name))
    }


def schema_of(model: type[BaseModel], name: str) -> object:
    """Return the JSON schema of one field."""
    return model.model_json_schema()["properties"][name]


# --------------------------------------------------------------------------------------
# Load test
# --------------------------------------------------------------------------------------


def test_table_of_load_options_is_the_codes() -> None:
    """The table has every option of the load test, with its default."""
    shown: dict[str, str] = {}
    for option, default, _ in table(page("docs/load-testing.md").text, "Option", "Default"):
        of_row = names(option)
        defaults = default.split(", ") if ", " in default else [default] * len(of_row)
        shown |= zip(of_row, defaults, strict=True)
    fields: dict[str, Any] = {flag(f.name): f.default for f in dataclasses.fields(Options)}
    assert set(shown) == set(fields)
    for name, default in fields.items():
        if default is None or default is False:
            assert shown[name] in {"", "none", "no limit", "the scenario's"}, name
        elif isinstance(default, str):
            assert shown[name].strip("`") in default
        else:
            assert float(shown[name]) == default, name


def test_table_of_scenarios_is_the_codes() -> None:
    """The table has every scenario, with its tag."""
    rows = table(page("docs/load-testing.md").text, "Class", "Tag")
    assert {names(row[0])[0]: names(row[1]) for row in rows} == scenarios()


def test_every_figure_of_the_benchmarks_has_its_script() -> None:
    """The table of the benchmarks has every script that can be run."""
    rows = table(page("docs/benchmarks.md").text, "script")
    named = {name.removeprefix("python -m ") for row in rows for name in names(row[0])}
    scripts = (
        file.relative_to(REPOSITORY).with_suffix("").as_posix().replace("/", ".")
        for file in REPOSITORY.glob("benchmarks/**/*.py")
        if file.stem == "__main__" or "__main__" in file.read_text()
    )
    assert named == {module.removesuffix(".__main__") for module in scripts}
