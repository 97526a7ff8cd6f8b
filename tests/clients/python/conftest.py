"""Where the emulator is, for clients that are set up by the environment."""

import os

import pytest

# Before any client is imported: some read it once.
os.environ["OPENAI_BASE_URL"] = f"{os.environ['EMULATOR_URL']}/v1"


@pytest.fixture
def base_url() -> str:
    """Return the address of the API."""
    return os.environ["OPENAI_BASE_URL"]
