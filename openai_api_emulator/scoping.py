"""What a scope is: an id that a client's requests carry, and the clients that carry it."""

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from openai_api_emulator.calls import Json, direct

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

HEADER = "X-EMULATION-SCOPE"
KEY = "sk-scope-"


class ScopeBase:
    """The requests of one test, whose counts, rules and journal are kept apart from all others.

    Args:
        url: The server's address, without ``/v1``.
        name: The id, 1 to 64 letters, digits and ``._:-``; drawn if it is None.
    """

    def __init__(self, url: str, name: str | None) -> None:
        self.id = name or uuid4().hex[:12]
        self.url = url
        self.has_rules = False
        self.clients: list[OpenAI] = []
        self.async_clients: list[AsyncOpenAI] = []
        self._overrides = count(1)

    @property
    def base_url(self) -> str:
        """The address that OpenAI's clients take, with ``/v1``."""
        return f"{self.url}/v1"

    @property
    def api_key(self) -> str:
        """An API key that carries the scope, for clients that cannot send headers."""
        return f"{KEY}{self.id}"

    @property
    def headers(self) -> dict[str, str]:
        """The headers that carry the scope, and its key."""
        return {HEADER: self.id, "Authorization": f"Bearer {self.api_key}"}

    def openai(self, **options: Any) -> "OpenAI":  # noqa: ANN401 - OpenAI's
        """Return an OpenAI client whose requests are of this scope; it is closed with the scope.

        Args:
            options: What ``openai.OpenAI`` takes.

        Raises:
            ImportError: The package openai is not installed.
        """
        try:
            from openai import DefaultHttpxClient, OpenAI  # noqa: PLC0415 - need not be installed
        except ImportError as error:
            raise _no_openai() from error
        client = OpenAI(**self._options(options, DefaultHttpxClient))
        self.clients.append(client)
        return client

    def async_openai(self, **options: Any) -> "AsyncOpenAI":  # noqa: ANN401 - OpenAI's
        """Return an asynchronous OpenAI client whose requests are of this scope.

        An asynchronous scope closes it; else the caller has to.

        Args:
            options: What ``openai.AsyncOpenAI`` takes.

        Raises:
            ImportError: The package openai is not installed.
        """
        try:
            from openai import AsyncOpenAI, DefaultAsyncHttpxClient  # noqa: PLC0415 - need not be installed
        except ImportError as error:
            raise _no_openai() from error
        client = AsyncOpenAI(**self._options(options, DefaultAsyncHttpxClient))
        self.async_clients.append(client)
        return client

    def next_override(self) -> str:
        """Return a name for the rule of one more override."""
        return f"override-{next(self._overrides)}"

    def named(self, name: str) -> str:
        """Return the name that one of its rules has for the server."""
        return f"{self.id}:{name}"

    def scoped(self, rule: Json) -> dict[str, Any]:
        """Return a rule that this scope alone sees."""
        return {**rule, "scope": self.id}

    def own(self, rules: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return those of all rules that are its own, by the names that it has for them."""
        prefix = self.named("")
        return [
            {**rule, "name": rule["name"].removeprefix(prefix)}
            for rule in rules
            if rule.get("scope") == self.id and rule["name"].startswith(prefix)
        ]

    def _options(
        self, options: Mapping[str, Any], http_client: Callable[..., object]
    ) -> dict[str, Any]:
        own: dict[str, Any] = {"base_url": self.base_url, "api_key": self.api_key}
        if "http_client" not in options:
            own["http_client"] = http_client(**direct(self.url))
        headers = {HEADER: self.id, **(options.get("default_headers") or {})}
        return {**own, **options, "default_headers": headers}


def _no_openai() -> ImportError:
    return ImportError(
        "An OpenAI client needs the package openai: pip install 'openai-api-emulator[openai]'"
    )
