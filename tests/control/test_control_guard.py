"""The guard on the wire: tries from elsewhere, by a browser too, and what a key opens."""

import json
import socket
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.control.conftest import JSON, KEY, Controller
from tests.house.test_browser import CHROMIUM, browse, running_site
from tests.support.raw import exchange
from tests.support.server import PLAIN, Server, args, running_server
from tests.support.wire import CHAT_PATH, chat

CHANGE = b'{"itl_ms": 1}'


def other_addresses() -> list[str]:
    """Return the IPv4 addresses of this machine that are not loopback."""
    return [
        address.address
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    ]


def tried(server: Server, *lines: str, host: str | None = None) -> list[int]:
    """Return the statuses of a change and of a look with these headers, byte by byte as given."""
    named = host or f"localhost:{server.address[1]}"
    statuses = []
    for method, body in (("PATCH", CHANGE), ("GET", b"")):
        path = "/emulator/settings"
        head = [f"{method} {path} HTTP/1.1", f"Host: {named}", *lines, "Connection: close"]
        head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        data = "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body
        statuses += [reply.status for reply in exchange(server.address, data)]
    return statuses


TRIES: dict[str, tuple[list[str], str | None]] = {
    "X-Forwarded-For": (["X-Forwarded-For: 127.0.0.1"], None),
    "X-Forwarded-For of elsewhere": (["X-Forwarded-For: 10.1.2.3"], None),
    "x-forwarded-proto": (["x-forwarded-proto: https"], None),
    "Forwarded": (["Forwarded: for=127.0.0.1;host=localhost"], None),
    "X-Real-IP": (["X-Real-IP: ::1"], None),
    "Via": (["Via: 1.0 fred"], None),
    "a foreign origin": (["Origin: https://evil.example"], None),
    "another port's origin": (["Origin: http://localhost:1"], None),
    "no origin's origin": (["Origin: null"], None),
    "a page of another site": (["Sec-Fetch-Site: cross-site"], None),
    "rebinding": ([], "evil.example"),
    "rebinding with a port": ([], "evil.example:3000"),
    "a name that begins well": ([], "localhost.evil.example"),
    "a number": ([], "2130706433"),
}


@pytest.mark.parametrize(("lines", "host"), TRIES.values(), ids=TRIES.keys())
def test_tries_from_elsewhere_fail(control: Controller, lines: list[str], host: str | None) -> None:
    """What a proxy, a foreign page or a name bound anew sends is refused, and changes nothing."""
    before = control.status["revision"]
    assert tried(control.server, *lines, host=host) == [403, 403]
    assert control.status["revision"] == before
    assert tried(control.server) == [200, 200]


def test_another_address_of_this_machine_is_elsewhere(
    local_only: None,  # noqa: ARG001 - skips
) -> None:
    """Who comes by an address that others can reach is refused, whatever Host is said."""
    addresses = other_addresses()
    if not addresses:
        pytest.skip("this machine has no other address")
    with running_server("--host", "0.0.0.0", *args(workers=1)) as server:  # noqa: S104
        port = server.address[1]
        for address in addresses:
            for host in (f"localhost:{port}", f"{address}:{port}"):
                url = f"http://{address}:{port}/emulator/settings"
                for method in ("GET", "PATCH"):
                    answer = PLAIN.request(method, url, headers={**JSON, "host": host}, json={})
                    assert answer.status_code == 403, (address, host, method)
        assert Controller(server).status["revision"] == 0


@pytest.mark.parametrize("kind", ["multipart/form-data", "application/x-www-form-urlencoded", None])
@pytest.mark.parametrize("path", ["/emulator/reset", "/emulator/settings"])
def test_forms_change_nothing(control: Controller, kind: str | None, path: str) -> None:
    """A form can be sent by any page; it says no JSON, and is refused."""
    before = control.status["revision"]
    head = {} if kind is None else {"content-type": kind}
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        answer = control.http(method, path, headers=head, content=CHANGE)
        assert answer.status_code in (405, 415)
    assert control.status["revision"] == before


def test_no_preflight_lets_a_page_in(control: Controller) -> None:
    """A page of another origin is told nothing that would let its browser send a change."""
    headers = {
        "origin": "http://page.example",
        "access-control-request-method": "PATCH",
        "access-control-request-headers": "content-type",
    }
    answer = control.http("OPTIONS", "/emulator/settings", headers=headers)
    assert answer.status_code >= 400
    assert not [name for name in answer.headers if name.startswith("access-control")]


# --------------------------------------------------------------------------------------
# A browser
# --------------------------------------------------------------------------------------

PAGE = """<!doctype html>
<img src="/wait"><iframe name="hidden"></iframe>
<form id="form" target="hidden" method="POST" action="%(url)s/emulator/reset"
 enctype="text/plain"><input name='{"what":["settings"],"a' value='":1}'></form>
<script>
const url = "%(url)s/emulator/settings", body = '{"itl_ms":1}', seen = {};
async function tried(name, options, path = url) {
  try {
    const answer = await fetch(path, options);
    seen[name] = answer.type == "opaque" ? "opaque" : answer.status;
  } catch (error) { seen[name] = "blocked"; }
}
async function run() {
  document.getElementById("form").submit();
  await tried("get", {});
  await tried("patch", {method: "PATCH", headers: {"Content-Type": "application/json"}, body});
  await tried("simple", {method: "POST", mode: "no-cors", body}, "%(url)s/emulator/reset");
  await tried("rebound", {}, "http://evil.localhost.example:%(port)d/emulator/settings");
}
run().then(() => setTimeout(() =>
  fetch("/seen", {method: "POST", body: JSON.stringify(seen)}), 500));
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs the program chromium")
def test_a_page_in_a_browser_cannot_control(control: Controller, tmp_path: Path) -> None:
    """In Chromium a page of another origin reads nothing and changes nothing, by no way."""
    control.patch(itl_ms=9)
    revision = control.status["revision"]
    port = control.server.address[1]
    rebinding = "--host-resolver-rules=MAP *.localhost.example 127.0.0.1"
    with running_site(PAGE % {"url": control.server.url, "port": port}) as site:
        browse(tmp_path, f"http://127.0.0.1:{site.server_port}/", rebinding)
    assert site.seen == {
        "get": "blocked",
        "patch": "blocked",
        "simple": "opaque",
        "rebound": "blocked",
    }
    assert control.status["revision"] == revision


# --------------------------------------------------------------------------------------
# Keys, and control that is off
# --------------------------------------------------------------------------------------

ELSEWHERE = {"x-forwarded-for": "10.1.2.3"}


def test_the_key_opens(engine: Controller) -> None:
    """Who has the key controls from elsewhere; who has another is told that one is asked for."""
    told = engine.ask("PATCH", "/settings", {"itl_ms": 3}, **ELSEWHERE)
    assert told.status_code == 401
    assert told.headers["www-authenticate"] == "Bearer"
    for key in (KEY[:-1], KEY + "x", "sk-key-of-the-api"):
        answer = engine.ask("GET", "", authorization=f"Bearer {key}", **ELSEWHERE)
        assert answer.status_code == 401
        assert key not in answer.text
    good = {"authorization": f"Bearer {KEY}", "host": "emulator.example", **ELSEWHERE}
    answer = engine.ask("PATCH", "/settings", {"itl_ms": 3}, **good)
    assert answer.json()["applied"] == "1 of 1"


def test_the_key_is_told_nowhere(engine: Controller) -> None:
    """Neither answers nor the log hold the key."""
    engine.ask("GET", "", authorization=f"Bearer {KEY}")
    texts = [engine.ask("GET", path).text for path in ("", "/settings")]
    texts += [engine.server.log(), PLAIN.get(f"{engine.server.url}/metrics").text]
    assert [text for text in texts if KEY in text] == []


def test_keys_of_the_api_open_nothing(
    local_only: None,  # noqa: ARG001 - skips
    tmp_path: Path,
) -> None:
    """A key of api_keys is none of control, and control=key asks this machine for the key."""
    keys = tmp_path / "keys.yaml"
    keys.write_text("keys: [{name: ann, key: sk-ann}]\n")
    settings = args(workers=1, api_keys=keys, control="key", control_key=KEY)
    with running_server(*settings) as server:
        controller = Controller(server)
        assert controller.ask("GET", "").status_code == 401
        assert controller.ask("GET", "", authorization="Bearer sk-ann").status_code == 401
        assert controller.ask("GET", "", authorization=f"Bearer {KEY}").status_code == 200
        api = PLAIN.post(
            f"{server.url}{CHAT_PATH}", json=chat(), headers={"authorization": f"Bearer {KEY}"}
        )
        assert api.status_code == 401
        log = server.log()
    assert KEY not in log


def test_control_that_is_off_is_not_there(local_only: None) -> None:  # noqa: ARG001 - skips
    """With control=off every path below /emulator is answered as one that is not there."""
    with running_server(*args(workers=1, control="off", control_key=KEY)) as server:
        controller = Controller(server)
        for method in ("GET", "PATCH", "POST", "DELETE", "OPTIONS"):
            for path in ("", "/settings", "/reset", "/nothing"):
                answer = controller.ask(method, path, {}, authorization=f"Bearer {KEY}")
                other = PLAIN.request(method, f"{server.url}/emulato{path}", headers=JSON)
                assert answer.status_code == other.status_code == 404
                assert answer.text == other.text.replace("/emulato", "/emulator")
        described = PLAIN.get(f"{server.url}/openapi.json").json()["paths"]
        assert [path for path in described if path.startswith("/emulator")] == []


# --------------------------------------------------------------------------------------
# The engine
# --------------------------------------------------------------------------------------


def streamed(server: Server, tokens: int) -> httpx.Response:
    """Return a whole stream of an answer that the engine times."""
    body = chat("word " * 100, stream=True, stream_options={"include_usage": True})
    return PLAIN.post(
        f"{server.url}{CHAT_PATH}",
        json=body,
        headers={"X-OUTPUT-LENGTH": f"{tokens}", "X-EMULATION-REPORT": "true"},
    )


def last(answer: httpx.Response) -> dict[str, Any]:
    """Return the last chunk of a stream."""
    *_, chunk, _, _ = answer.text.split("\n\n")
    found: dict[str, Any] = json.loads(chunk.removeprefix("data: "))
    return found


def test_an_engine_that_runs_changes(engine: Controller) -> None:
    """Other step times count from the next step on, and requests go on."""
    slow = last(streamed(engine.server, 20))["emulation"]["itl_ms"]["asked"]
    told = engine.patch(engine={"step_base_ms": 1, "step_per_sequence_ms": 0.5})
    assert told["settings"]["engine"]["step_base_ms"] == 1
    quick = last(streamed(engine.server, 20))["emulation"]["itl_ms"]["asked"]
    assert (slow, quick) == (pytest.approx(11, abs=0.5), pytest.approx(1.5, abs=0.5))
    engine.patch(engine=None)
    again = last(streamed(engine.server, 20))["emulation"]["itl_ms"]["asked"]
    assert again == pytest.approx(slow, abs=0.1)


def test_bounds_of_an_engine_change(engine: Controller) -> None:
    """A bound that is lowered holds for what comes; what is out of its range is refused."""
    assert engine.ask("PATCH", "/settings", {"engine": {"max_num_seqs": 0}}).status_code == 400
    engine.patch(engine={"max_num_seqs": 1, "max_num_batched_tokens": 1})
    assert streamed(engine.server, 2).status_code == 200
