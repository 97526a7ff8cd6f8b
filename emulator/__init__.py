"""The rooms of the emulator, from low to high; `docs/architecture.md` tells the order."""
