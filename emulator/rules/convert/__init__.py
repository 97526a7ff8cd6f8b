"""From fixtures of aimock (the npm package @copilotkit/aimock) to rules.

    python -m emulator.rules.convert fixtures/ > rules.yaml

The fields are those of `FixtureFileEntry` in its types, as of version 1.43. There the first fixture
that matches answers; here each rule decides what it says something about, so that rules say a
little more than fixtures do: see `joining.py`.
"""
