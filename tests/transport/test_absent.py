"""OpenAI's endpoints that are not here, and paths that nobody has."""

import re
from pathlib import Path

import httpx
import openai
import pytest

from emulator.apis.table import APIS, COMPUTATIONS
from emulator.contract.absent import ABSENT, absent_endpoint

PATHS = [api.path for api in APIS] + [each.path for each in COMPUTATIONS]
# What is written in the client, such as `"/fine_tuning/jobs"` and `f"/files/{file_id}"`.
_PATH = re.compile(r'"(/[a-z_]+(?:/[a-z_{}]+)*)(?:\?[^"]*)?"')


def beginnings() -> set[str]:
    """Return the first part of every path that the official client asks."""
    folder = Path(openai.__file__).parent / "resources"
    written = [path for file in folder.rglob("*.py") for path in _PATH.findall(file.read_text())]
    return {f"/v1/{path.removeprefix('/v1').split('/')[1]}" for path in written}


def test_each_path_of_the_client_is_here_or_absent() -> None:
    """Every path of the official client is served, or known as one that is not."""
    served = {f"/v1/{path.split('/')[2]}" for path in PATHS if path.startswith("/v1/")}
    known = {f"/v1/{beginning.split('/')[2]}" for beginning in ABSENT}
    found = beginnings()
    assert len(found) > 20
    if openai.__version__.startswith("3.54."):  # what the table is made of
        assert known <= found
        assert found - served - known == {"/v1/models"}


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT", "PATCH"])
@pytest.mark.parametrize(
    "path", ["/v1/files", "/v1/files/file-1/content", "/v1/images/edits", "/v1/chat/completions/x"]
)
def test_every_method_is_told(http: httpx.Client, method: str, path: str) -> None:
    """Whatever is asked of such an endpoint, the answer says that it is not here."""
    answer = http.request(method, path)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (404, "unsupported_endpoint")
    assert (error["type"], error["param"]) == ("invalid_request_error", None)
    assert error["message"].startswith(f"This emulator has no such endpoint ({method} {path})")


def test_the_client_raises_what_it_should(client: openai.OpenAI) -> None:
    """The official client finds nothing there, and says why."""
    with pytest.raises(openai.NotFoundError, match="does not have OpenAI's vector stores"):
        client.vector_stores.create(name="x")
    with pytest.raises(openai.NotFoundError, match="no such endpoint"):
        client.chat.completions.retrieve("chatcmpl-1")


@pytest.mark.parametrize("path", ["/v1/filesystem", "/v1/nothing", "/v2/files", "/files", "/v1"])
def test_other_paths_are_invalid(http: httpx.Client, path: str) -> None:
    """A path that OpenAI does not have is an invalid URL, as there."""
    error = http.post(path, json={}).json()["error"]
    assert error["message"] == f"Invalid URL (POST {path})"
    assert error["code"] is None


def test_what_is_here_is_not_absent() -> None:
    """No endpoint that is served is among those that are not."""
    assert {absent_endpoint(path) for path in PATHS} == {None}
