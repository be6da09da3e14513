"""Docker contexts on disk, as the command line stores them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def put_context(folder: Path, name: str, host: str, *, skip: bool = False, material: tuple[str, ...] = ()) -> None:
    """A context as `docker context create` stores it; ``material``: names of files with certificates, which hold their own names."""
    known = hashlib.sha256(name.encode()).hexdigest()
    meta = folder / "contexts/meta" / known / "meta.json"
    meta.parent.mkdir(parents=True)
    meta.write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": skip}}}))
    for one in material:
        path = folder / "contexts/tls" / known / "docker" / one
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(one)
