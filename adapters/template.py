"""Templates beside the adapters: ``@NAME@`` is replaced, everything else stays. BitBake, make and shells all use ``$``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources

_PLACEHOLDER = re.compile(r"@([A-Z][A-Z0-9_]*)@")


def read_template(system: str, name: str) -> str:
    """The text of ``adapters/<system>/templates/<name>``."""
    return (resources.files("shiplap.adapters") / system / "templates" / name).read_text(encoding="utf-8")


def fill(template: str, values: Mapping[str, str]) -> str:
    """``template`` with every placeholder replaced. A placeholder without a value, or a value without a placeholder, is a bug."""
    wanted = set(_PLACEHOLDER.findall(template))
    if wanted != set(values):
        raise AssertionError(f"placeholders without a value: {sorted(wanted - set(values))}; values unused: {sorted(set(values) - wanted)}")
    return _PLACEHOLDER.sub(lambda found: values[found[1]], template)
