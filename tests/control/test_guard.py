"""The guard: who may control, by where a request comes from, what it says, and the settings."""

from typing import Any

import pytest

from emulator.control.guard import Verdict, judge
from emulator.settings import Settings

KEY = "a-key-of-thirty-two-characters-x"
LOCAL = Settings()
KEYED = Settings(control_key=KEY)
ONLY_KEY = Settings(control="key", control_key=KEY)
OFF = Settings(control="off", control_key=KEY)
HOST = "localhost:3000"
GOOD = f"Bearer {KEY}"


def verdict(
    settings: Settings = LOCAL,
    /,
    peer: str | None = "127.0.0.1",
    **fields: Any,  # noqa: ANN401
) -> Verdict:
    """Return the verdict on a request; a header's name has _ for -, and a list comes as several."""
    given = {"host": HOST, **fields}
    headers = [
        (name.replace("_", "-").encode(), text.encode("latin-1"))
        for name, value in given.items()
        if value is not None
        for text in (value if isinstance(value, list) else [value])
    ]
    return judge(peer, headers, settings)


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:3000", "LOCALHOST:3000", "emulator.localhost:80"),
        *("127.0.0.1:3000", "127.1.2.3", "[::1]:3000", "[::1]", "[::ffff:127.0.0.1]:1"),
    ],
)
def test_this_machine_passes(peer: str, host: str) -> None:
    """A client on loopback that asks for a loopback name or address may control."""
    assert verdict(peer=peer, host=host) is Verdict.PASSES


@pytest.mark.parametrize(
    "fields",
    [
        {"origin": "http://localhost:3000"},
        {"origin": "http://LOCALHOST:3000", "sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "none"},
        {"authorization": "Bearer sk-of-a-client"},
        {"host": "127.0.0.1:3000", "origin": "http://127.0.0.1:3000"},
        {"host": "[::1]:3000", "origin": "http://[::1]:3000"},
    ],
)
def test_own_page_and_own_keys_pass(fields: dict[str, str]) -> None:
    """The server's own page passes, and so does a client that sends a key for the API."""
    assert verdict(**fields) is Verdict.PASSES


TRIES: dict[str, dict[str, Any]] = {
    "another machine": {"peer": "192.168.1.7"},
    "another address of this machine": {"peer": "10.0.0.5"},
    "a container's gateway": {"peer": "172.17.0.1"},
    "another machine by IPv6": {"peer": "2001:db8::1"},
    "an address that only holds 127": {"peer": "1.127.0.1"},
    "mapped, and not loopback": {"peer": "::ffff:10.0.0.1"},
    "a unix socket": {"peer": None},
    "no address": {"peer": "testclient"},
    "an empty peer": {"peer": ""},
    "X-Forwarded-For": {"x_forwarded_for": "127.0.0.1"},
    "X-Forwarded-Host": {"x_forwarded_host": "localhost"},
    "X-Forwarded-Proto": {"x_forwarded_proto": "http"},
    "an empty X-Forwarded-For": {"x_forwarded_for": ""},
    "Forwarded": {"forwarded": "for=127.0.0.1"},
    "X-Real-IP": {"x_real_ip": "127.0.0.1"},
    "Via": {"via": "1.1 proxy"},
    "rebinding": {"host": "evil.example:3000"},
    "rebinding with loopback inside": {"host": "127.0.0.1.evil.example:3000"},
    "localhost inside": {"host": "localhost.evil.example"},
    "a user before the name": {"host": "localhost@evil.example"},
    "a user before localhost": {"host": "evil.example@localhost"},
    "a path after the name": {"host": "localhost/evil.example"},
    "no host": {"host": None},
    "an empty host": {"host": ""},
    "two hosts": {"host": ["localhost:3000", "evil.example"]},
    "every address": {"host": "0.0.0.0:3000"},
    "a port that is none": {"host": "localhost:99999"},
    "letters in the port": {"host": "localhost:port"},
    "a number for 127.0.0.1": {"host": "2130706433:3000"},
    "a host that is no ASCII": {"host": "l\xf6calhost"},
    "a foreign page": {"origin": "https://evil.example"},
    "a page on another port": {"origin": "http://localhost:8080"},
    "a page on another name of loopback": {"origin": "http://127.0.0.1:3000"},
    "a page without an origin": {"origin": "null"},
    "an empty origin": {"origin": ""},
    "an extension": {"origin": "chrome-extension://localhost:3000"},
    "two origins": {"origin": [f"http://{HOST}", "https://evil.example"]},
    "an image on a foreign page": {"sec_fetch_site": "cross-site"},
    "an image on a page of another port": {"sec_fetch_site": "same-site"},
}


@pytest.mark.parametrize("fields", TRIES.values(), ids=TRIES.keys())
def test_tries_from_elsewhere_fail(fields: dict[str, Any]) -> None:
    """What does not come from this machine by itself is refused."""
    assert verdict(**fields) is Verdict.FOREIGN


@pytest.mark.parametrize("fields", TRIES.values(), ids=TRIES.keys())
def test_the_key_opens_from_everywhere(fields: dict[str, Any]) -> None:
    """Who has the key may control from wherever; without it a key is asked for."""
    assert verdict(KEYED, **fields) is Verdict.KEYLESS
    assert verdict(KEYED, **fields, authorization=GOOD) is Verdict.PASSES
    assert verdict(ONLY_KEY, **fields, authorization=f"bearer  {KEY} ") is Verdict.PASSES


@pytest.mark.parametrize(
    "given",
    [
        *("", KEY, "Bearer", "Bearer ", f"Basic {KEY}", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}"),
        *(f"Bearer {KEY.upper()}", "Bearer sk-another", f"Bearer {KEY[::-1]}", "Bearer \xff"),
        [GOOD, GOOD],
        ["Bearer no", GOOD],
    ],
)
def test_a_wrong_key_opens_nothing(given: str | list[str]) -> None:
    """From elsewhere, and everywhere with control=key, nothing but the key itself opens."""
    assert verdict(KEYED, peer="10.0.0.5", authorization=given) is Verdict.KEYLESS
    assert verdict(ONLY_KEY, authorization=given) is Verdict.KEYLESS


def test_only_the_key_opens_where_the_setting_says_so() -> None:
    """With control=key this machine needs the key too."""
    assert verdict(ONLY_KEY) is Verdict.KEYLESS
    assert verdict(ONLY_KEY, authorization=GOOD) is Verdict.PASSES
    assert verdict(KEYED) is Verdict.PASSES


def test_off_hides_it_even_from_the_key() -> None:
    """With control=off nobody may control."""
    assert verdict(OFF) is Verdict.HIDDEN
    assert verdict(OFF, authorization=GOOD) is Verdict.HIDDEN
