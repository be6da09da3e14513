"""Why an image has another config digest than expected although it may be "the same" image.

A config digest is the image's identity. Tools that convert between Docker's and OCI's formats, squash, or merely print
the JSON anew make another config over the same layers; the diffIDs tell that apart from another image.
"""

from __future__ import annotations

import json
from typing import Any

from shiplap.core.image import Image

_MAX_KEYS = 8


def explain(
    expected_config_digest: str, actual: Image, *, expected_diff_ids: tuple[str, ...] | None = None, expected_config: bytes | None = None
) -> str:
    """One line for a message: which digests differ and, as far as it can be told, why.

    ``expected_diff_ids``: of the image that was wanted, where they are known (a lock has them). ``expected_config``: its
    raw config, where it is at hand (a cache); then the keys that differ are named.
    """
    text = f"the image has config digest {actual.config_digest}, expected is {expected_config_digest}"
    if actual.config_digest == expected_config_digest:
        return f"the image has config digest {actual.config_digest}, as expected"
    if expected_diff_ids is not None:
        text += f"; {_layers(expected_diff_ids, actual.diff_ids)}"
    if expected_config is not None:
        text += f"; {_keys(expected_config, actual.config)}"
    return text


def is_rewritten(expected_diff_ids: tuple[str, ...], actual: Image) -> bool:
    """Whether only the config is another one."""
    return expected_diff_ids == actual.diff_ids


def _layers(expected: tuple[str, ...], actual: tuple[str, ...]) -> str:
    if expected == actual:
        count = f"all {len(actual)} layers are" if len(actual) != 1 else "the only layer is"
        return f"{count} the same (same diffIDs): the image was converted, and the tool that did it wrote the config anew"
    if len(expected) != len(actual):
        common = next((index for index, (one, other) in enumerate(zip(expected, actual, strict=False)) if one != other), None)
        alike = min(len(expected), len(actual)) if common is None else common
        return f"it has {len(actual)} layers instead of {len(expected)}, the first {alike} of them the same: it is another image"
    different = [str(index) for index, (one, other) in enumerate(zip(expected, actual, strict=True)) if one != other]
    listed = ", ".join(different[:_MAX_KEYS]) + (" …" if len(different) > _MAX_KEYS else "")
    return f"of its {len(actual)} layers {len(different)} differ ({listed}, counted from 0): it is another image"


def _keys(expected: bytes, actual: bytes) -> str:
    try:
        one, other = json.loads(expected), json.loads(actual)
    except (ValueError, RecursionError):
        return "the configs cannot be compared"
    if one == other:
        return "the configs say the same and are only written differently (order of keys, blanks, escapes)"
    names = _different(one, other, "")
    listed = ", ".join(names[:_MAX_KEYS]) + (f" and {len(names) - _MAX_KEYS} more" if len(names) > _MAX_KEYS else "")
    return f"the configs differ in {listed}"


def _different(one: Any, other: Any, path: str) -> list[str]:
    """Keys with another value, at most two levels deep: enough to see which part was touched."""
    if not (isinstance(one, dict) and isinstance(other, dict)) or path.count(".") > 0:
        return [path or "everything"]
    names: list[str] = []
    for key in sorted({*one, *other}):
        if one.get(key) != other.get(key) or (key in one) != (key in other):
            name = f"{path}.{key}" if path else str(key)
            both = isinstance(one.get(key), dict) and isinstance(other.get(key), dict)
            names += _different(one[key], other[key], name) if both else [name]
    return [name if name.isprintable() and len(name) < 80 else ascii(name[:80])[1:-1] for name in names]
