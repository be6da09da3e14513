"""The file that a sink makes: fresh, on disk when all went well, gone otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shiplap.core.errors import OutsideFailure


@contextmanager
def fresh_image(output: Path) -> Iterator[None]:
    """The body makes ``output``, which must not exist yet. Synced when the body ends well, removed when it raises."""
    if os.path.lexists(output):
        raise OutsideFailure(f"{output} exists already", hint="an image is only ever written to a fresh path")
    try:
        yield
        _sync(output)
    except BaseException:
        output.unlink(missing_ok=True)
        raise


def _sync(output: Path) -> None:
    try:
        descriptor = os.open(output, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise OutsideFailure(f"cannot sync {output} to disk: {error.strerror}") from error
