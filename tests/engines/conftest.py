"""Every engine test runs against the installed engine and against the newer ones that are at hand."""

from __future__ import annotations

import pytest
from engines.installations import Installation, installations


@pytest.fixture(scope="session", params=installations(), ids=lambda one: one.name)
def installation(request: pytest.FixtureRequest) -> Installation:
    found: Installation = request.param
    return found
