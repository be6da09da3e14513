"""Locks for tests: one with everything in it, and a manifest and layouts that a real ``shiplap lock`` can read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from archives import ImageSpec, dump, sha256
from commandline import shiplap_command
from images import file
from layertar import build
from shiplap.core.lock import Lock, LockedImage, LockedLayer, LockedManifest
from shiplap.core.lock.document import load_lock
from shiplap.core.platform import parse_platform
from shiplap.core.reference import parse_reference

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest_of(text: str) -> str:
    return sha256(text.encode())


def full_lock() -> Lock:
    """Every key of the format: a registry's image with index, manifest bytes and signature, and an archive's that knows none."""
    config = digest_of("config of app")
    raw = dump({"config": {"digest": config}, "layers": [{"digest": digest_of("blob 0")}, {"digest": digest_of("blob 1")}]})
    app = LockedImage(
        ref=parse_reference("app:1"),
        source="docker://registry.example/app:1",
        platform=parse_platform("linux/arm64/v8"),
        config=config,
        config_size_bytes=1234,
        layers=tuple(LockedLayer(digest_of(f"layer {n}"), digest_of(f"blob {n}"), 100 + n, OCI_LAYER) for n in range(2)),
        created_epoch=1714564800,
        index=digest_of("index"),
        manifest=LockedManifest(sha256(raw), len(raw), OCI_MANIFEST, raw),
        signature=(("key", "the key's name: ünï"), ("yes", "no")),
    )
    saved = LockedImage(
        ref=parse_reference("me/saved:2"),
        source="docker-archive:some folder/saved.tar",
        platform=parse_platform("linux/arm64"),
        config=digest_of("config of saved"),
        config_size_bytes=99,
        layers=(LockedLayer(digest_of("layer 0")),),
    )
    return Lock(1, 1714564800, (app, saved))


def write_manifest(folder: Path, images: Mapping[str, str] | Sequence[dict[str, Any]], **more: Any) -> Path:
    """``shiplap.yaml`` in ``folder``; ``images``: ref → from, or whole entries. JSON is YAML."""
    items = [{"ref": ref, "from": source} for ref, source in images.items()] if isinstance(images, Mapping) else list(images)
    path = folder / "shiplap.yaml"
    path.write_text(json.dumps({"version": 1, "images": items, **more}))
    return path


def run(folder: Path, *words: str, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """``shiplap WORDS --json`` in ``folder`` with a cache of its own; the result, with the exit code and notes beside it."""
    done = shiplap_command(*words, "--json", cwd=folder, env={"SHIPLAP_CACHE": str(folder / "cache"), **(env or {})})
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert done.returncode != 70, done.stderr
    result: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
    errors = [event["error"] for event in events if "error" in event]
    assert len(errors) <= 1 and (not errors or errors[0]["exit"] == done.returncode)
    notes = [event["message"] for event in events if event.get("event") == "note"]
    return {"exit": done.returncode, "notes": notes, "error": errors[0] if errors else None, **result}


def good(folder: Path, *words: str, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """As :func:`run`, for what must succeed."""
    result = run(folder, *words, env=env)
    assert result["exit"] == 0, result
    return result


def refused(folder: Path, *words: str, env: Mapping[str, str] | None = None, code: int = 2) -> str:
    """As :func:`run`, for what must fail; message and hint."""
    result = run(folder, *words, env=env)
    assert result["exit"] == code and result["error"], result
    return f"{result['error']['message']} | {result['error']['hint']}"


def lock_of(folder: Path) -> Lock:
    return load_lock(folder / "shiplap.lock.yaml")


def store_sums(result: Mapping[str, Any]) -> dict[str, str]:
    """What decides a store, of a build's result."""
    return {name: one["sha256"] for name, one in result["outputs"].items() if name.startswith("store.")}


def two_images() -> tuple[ImageSpec, ImageSpec]:
    """Two images with one layer in common."""
    base = build([file("base", b"base" * 500)])
    app = ImageSpec([base, build([file("app", b"app" * 700)])], tags=["app:1"])
    return app, ImageSpec([base, build([file("db", b"db" * 300)])], tags=["db:1"])
