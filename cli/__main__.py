"""``python -m shiplap.cli``."""

from __future__ import annotations

import sys

from shiplap.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
