"""JSON merge patches, RFC 7396, and their composition."""

from collections.abc import Mapping
from typing import Any


def merged(target: object, patch: object) -> Any:  # noqa: ANN401 - JSON
    """Return what a patch makes of a target.

    >>> merged({"a": 1, "b": {"c": 2, "d": 3}}, {"a": None, "b": {"c": 4}})
    {'b': {'c': 4, 'd': 3}}
    """
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def composed(overlay: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Return the overlay that says what two say one after the other, over any base.

    A null takes away what the overlay says, so that the base's own value holds again.

    >>> composed({"itl_ms": 5, "engine": {"max_num_seqs": 8}}, {"itl_ms": None, "ttft_ms": 1})
    {'engine': {'max_num_seqs': 8}, 'ttft_ms': 1}
    """
    found = merged(overlay, patch)
    return {name: value for name, value in found.items() if value != {} or patch.get(name) == {}}
