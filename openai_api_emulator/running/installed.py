"""Where the service is that this package carries."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def service_folder() -> Path:
    """Return the folder of ``service.py``: in a wheel within this package, else the repository.

    Raises:
        FileNotFoundError: There is none: the package was copied without it.
    """
    for folder in (_PACKAGE / "service", _PACKAGE.parent):
        if (folder / "service.py").is_file() and (folder / "tiktoken_cache").is_dir():
            return folder
    raise FileNotFoundError(f"{_PACKAGE / 'service'} has no service.py: install the package anew")
