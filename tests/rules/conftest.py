"""A server of two workers with the rules of the page, and some more."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.documents import page
from tests.support.server import TLS, Server, args, running_server

MORE = """\
- name: first-fifty
  match: {model: fifty}
  times: 50
  fault: {status: 503}
- name: twenty
  match: {model: twenty}
  answer: [TWENTY]
  at_end: pass
- name: twenty-over
  match: {model: twenty}
  answer: {text: over}
- name: mine
  scope: mine
  match: {model: scoped}
  answer: {text: mine alone}
- name: verbatim
  match: {model: "*verbatim*"}
  answer: {text: "{{ user }}"}
- name: all-parts
  match: {text: all parts}
  answer:
    parts:
      - {reasoning: "Hm, hm."}
      - {text: "First "}
      - {tool_call: {name: note, arguments: {a: 1}, offered: false, id: call_1}}
      - {text: last}
    usage: {prompt_tokens: 7, cached_tokens: 3}
    id: my-own-id
    model: another-model
    system_fingerprint: fp_own
    service_tier: flex
- name: vector
  match: {path: /v1/embeddings, text: cat}
  answer: {embedding: [0.5, -1, 2]}
- name: flags-once
  match: {path: /v1/moderations, text: once}
  times: 1
  flagged: [violence]
- name: flags-many-once
  match: {path: /v1/moderations, text: many}
  times: 1
  flagged: [violence]
- name: fails
  match: {text: fails}
  answer: {text: "{{ messages[9].content }}"}
- name: needle
  match: {text: "*needle*", model: large}
  times: 3
  answer: {text: "found {{ n }}"}
- name: rejected
  match: {model: rejected}
  times: 1
  answer: {text: counted}
"""
TWENTY = ", ".join(f"{{text: t{number}}}" for number in range(20))


def rules_of_the_page() -> str:
    """Return all rules of the recipes, as one list."""
    recipes = page("docs/rules.md").text.partition("## Ten recipes")[2]
    return "\n".join(re.findall(r"^```yaml\n(.*?)^```$", recipes, re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="session")
def ruled(local_only: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:  # noqa: ARG001
    """Yield a server of two workers with rules, whose answers come at once."""
    file: Path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    # Those that are for many models come last.
    file.write_text(MORE.replace("TWENTY", TWENTY) + rules_of_the_page())
    with running_server(*args(rules=file, workers=2, ttft_ms=0, itl_ms=0)) as started:
        yield started


@pytest.fixture(scope="session")
def http_ruled(ruled: Server) -> Iterator[httpx.Client]:
    """Yield a plain client of that server."""
    with httpx.Client(base_url=ruled.url, timeout=30, trust_env=False, verify=TLS) as client:
        yield client
