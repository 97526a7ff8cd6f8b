"""The test files as the specification runs them."""

import os
import subprocess
import sys

import pytest

from tests.server import REPOSITORY


@pytest.mark.parametrize(
    ("script", "test"),
    [("test_api.py", "test_health"), ("test_multimodal.py", "test_image_alone")],
)
def test_runs_as_a_script(script: str, test: str, base_url: str) -> None:
    """``python test_api.py`` and ``python test_multimodal.py`` run their tests with pytest."""
    ended = subprocess.run(  # noqa: S603 - our own command line
        [sys.executable, script, "-k", test, "-p", "no:cacheprovider"],
        cwd=REPOSITORY,
        env={**os.environ, "EMULATOR_URL": base_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "1 passed" in ended.stdout
