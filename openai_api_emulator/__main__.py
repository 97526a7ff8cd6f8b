"""``python -m openai_api_emulator`` is the command ``openai-api-emulator``."""

from openai_api_emulator.cli import main

main()
