"""The package: its command, its clients, the plugin for pytest, and the wheel."""
