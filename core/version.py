"""The release's number, once for code; a test holds it equal to pyproject.toml.

It never decides a byte of a store: see "What decides the bytes" in the design.
"""

from __future__ import annotations

VERSION = "0.1.0"
