"""The bench of tests/boot, for the machine that boots Buildroot's image."""

from __future__ import annotations

import pytest
from boot.firmware import Bench
from requirement import require


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    require("qemu", "docker", "veritysetup", "shells")
    return Bench(tmp_path_factory.mktemp("bench"))
