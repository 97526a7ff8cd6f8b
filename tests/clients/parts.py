"""The parts of tests/clients: what each needs, how it is installed and how its checks run.

In commands and variables, {here} is the part's folder and {home} its environment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.clients import results

FOLDER = Path(__file__).parent
VOCABULARIES = FOLDER.parents[1] / "tiktoken_cache"

Command = Sequence[str]


@dataclass(frozen=True)
class Part:
    """Clients of one environment, whose checks run and are read in one way."""

    folder: str
    programs: Sequence[str]  # without which the part is skipped
    pins: Sequence[str]  # files of the folder that name each version; their hash names {home}
    install: Sequence[Command]  # what is done once, and may fail where no registry is reached
    check: Command
    read: results.Reader
    build: Command | None = None  # what compiles the checks, and is quick where nothing is new
    beside: str = ""  # pattern of the checks that are copied into {home} to be run there
    variables: Mapping[str, str] = field(default_factory=dict)
    at_checks: Mapping[str, str] = field(default_factory=dict)  # beside the former, once built

    @property
    def here(self) -> Path:
        """The folder of the checks."""
        return FOLDER / self.folder


def _python(folder: str, *files: str) -> Part:
    """Return a part of pytest's, with the environment of a requirements file."""
    python = "{home}/env/bin/python"
    uv = (python, "-m", "uv", "pip", "install", "-q", "--python", python)
    pytest = (python, "-m", "pytest", "-c", f"{FOLDER}/pytest.ini", "--rootdir={here}", "-q")
    return Part(
        folder,
        programs=("python3",),
        pins=("requirements.txt",),
        install=(
            ("python3", "-m", "venv", "{home}/env"),
            (python, "-m", "pip", "install", "-q", "uv==0.13.9"),
            (*uv, "-r", "{here}/requirements.txt"),
        ),
        check=(*pytest, "-rpfE", *(f"{{here}}/{file}" for file in files)),
        read=results.pytest,
        at_checks={
            "DSPY_CACHEDIR": "{home}/dspy",
            "HF_DATASETS_OFFLINE": "1",
            "HF_HOME": "{home}/huggingface",
            "HF_HUB_OFFLINE": "1",
            "LITELLM_LOCAL_MODEL_COST_MAP": "true",
            "TIKTOKEN_CACHE_DIR": str(VOCABULARIES),
        },
    )


def _node(folder: str) -> Part:
    """Return a part of Node.js's, whose checks run beside the packages that they import."""
    # Not `npm ci`, which wants programs for platforms that a mirror may not have.
    npm = ("npm", "install", "--prefix", "{home}", "--ignore-scripts", "--no-audit", "--no-fund")
    return Part(
        folder,
        programs=("node", "npm"),
        pins=("package.json", "package-lock.json"),
        install=(("cp", "{here}/package.json", "{here}/package-lock.json", "{home}"), npm),
        check=("node", "--test", "--test-concurrency=1", "--test-reporter=tap"),
        read=results.tap,
        beside="check_*.mjs",
        at_checks={
            "NODE_NO_WARNINGS": "1",
            "OPENAI_AGENTS_DISABLE_TRACING": "1",
            "npm_config_offline": "true",
        },
    )


_GO = ("go", "test", "-count=1", "-vet=off", "-gcflags=all=-N -l")  # compiles in 2/3 of the time
_MAVEN = ("mvn", "-B", "-Dmaven.repo.local={home}/repository", "-Dfolder={home}/target")

# Another server of scripted answers, which tests/rules/convert compares with the emulator.
AIMOCK = _node("aimock")

# Those that take longest to install come first.
PARTS: Mapping[str, Part] = {
    "rust": Part(
        "rust",
        programs=("cargo",),
        pins=("Cargo.toml", "Cargo.lock"),
        install=(("cargo", "fetch", "--locked"),),
        build=("cargo", "test", "--locked", "--offline", "--no-run"),
        check=("cargo", "test", "--locked", "--offline", "--", "--test-threads=1"),
        read=results.cargo,
        variables={
            "CARGO_HOME": "{home}/cargo",
            "CARGO_TARGET_DIR": "{home}/target",
            "RUST_BACKTRACE": "0",
        },
    ),
    "go": Part(
        "go",
        programs=("go",),
        pins=("go.mod", "go.sum"),
        install=(("go", "mod", "download"),),
        build=(*_GO, "-run=^$"),
        check=(*_GO, "-v"),
        read=results.go,
        variables={
            "CGO_ENABLED": "0",
            "GOCACHE": "{home}/build",
            "GOFLAGS": "-mod=readonly -modcacherw",
            "GOMODCACHE": "{home}/modules",
            "GOTELEMETRY": "off",
            "GOTOOLCHAIN": "local",
        },
        at_checks={"GOPROXY": "off"},
    ),
    "java": Part(
        "java",
        programs=("java", "mvn"),
        pins=("pom.xml",),
        install=((*_MAVEN, "process-test-resources"),),
        # Of no test: what runs tests is fetched with them.
        build=(*_MAVEN, "test", "-Dtest=None", "-Dsurefire.failIfNoSpecifiedTests=false"),
        check=(*_MAVEN, "-o", "test"),
        read=results.surefire,
    ),
    "lm-eval": _python("lm_eval", "check_lm_eval.py"),
    "agents": _python("python", "check_openai_agents.py", "check_pydantic_ai.py"),
    "dspy": _python("python", "check_dspy.py"),
    "inspect": _python("python", "check_inspect.py"),
    "langchain": _python("python", "check_langchain.py"),
    "openai": _python("python", "check_openai.py"),
    "smolagents": _python("python", "check_smolagents.py"),
    "node": _node("node"),
    "codex": _node("codex"),
    "opencode": _node("opencode"),
}
