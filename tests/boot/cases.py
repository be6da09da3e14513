"""What cases of test machines share: what they need, and what they look for on the console."""

from __future__ import annotations

import pytest
from boot.machine import Console
from engines import runnable
from requirement import demanded

# Minutes of emulated boots each: never by `all`.
requires_boots = pytest.mark.skipif(not demanded("boots"), reason="boots: by name only, SHIPLAP_REQUIRE=boots")


def said_everything(console: Console) -> bool:
    """The container ran, and saw what its image holds. An assertion on it shows the console's end."""
    missing = {f"SAID {line}" for line in runnable.expected_lines()} - set(console.lines)
    assert not missing, f"not said: {sorted(missing)}\n{console.text[-8000:]}"
    return "every container runs" in console.value("STATUS")
