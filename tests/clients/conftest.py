"""Where the emulator is, for clients that are set up by the environment."""

import os

import pytest

URL = os.environ.get("EMULATOR_URL", "http://localhost:3000").rstrip("/")

# Before any client is imported: some read them once.
os.environ["OPENAI_API_KEY"] = "dummy-key"
os.environ["OPENAI_BASE_URL"] = f"{URL}/v1"


@pytest.fixture
def base_url() -> str:
    """Return the address of the API."""
    return f"{URL}/v1"
