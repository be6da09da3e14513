"""What changed from one lock to the next: nothing is said where nothing changed, and nothing that changed is left out."""

from __future__ import annotations

import dataclasses
import json

from locks import digest_of, full_lock
from shiplap.core.lock import Lock, LockedLayer
from shiplap.core.lock.difference import lock_difference
from shiplap.core.platform import parse_platform
from shiplap.core.reference import parse_reference

OLD = full_lock()
APP, SAVED = OLD.images


def text(new: Lock, old: Lock | None = OLD) -> list[str]:
    difference = lock_difference(old, new)
    assert bool(difference) == (old != new), "empty exactly where both locks are the same"
    json.dumps(difference.data())
    return difference.text().splitlines()


def with_app(**changes: object) -> Lock:
    return dataclasses.replace(OLD, images=(dataclasses.replace(APP, **changes), SAVED))  # type: ignore[arg-type]


def test_the_same_lock_has_no_difference() -> None:
    assert text(full_lock()) == []
    assert lock_difference(OLD, full_lock()).data() == {"fields": [], "images": [], "reordered": False}


def test_a_first_lock_adds_every_image() -> None:
    lines = text(OLD, None)
    assert lines[0] == "+ docker.io/library/app:1  linux/arm64/v8, 2 layers (201 bytes), from docker://registry.example/app:1"
    assert APP.manifest and lines[1:3] == [f"    manifest: {APP.manifest.digest}", f"    config: {APP.config}"]
    assert lines[3:5] == [
        "+ docker.io/me/saved:2  linux/arm64, 1 layer, from docker-archive:some folder/saved.tar",
        "    manifest: unknown",
    ]


def test_images_come_and_go_and_change_places() -> None:
    assert text(dataclasses.replace(OLD, images=(APP,))) == ["- docker.io/me/saved:2"]
    assert text(dataclasses.replace(OLD, images=(SAVED, APP))) == ["the images stand in another order"]
    new = dataclasses.replace(SAVED, ref=parse_reference("new:1"))
    assert text(dataclasses.replace(OLD, images=(new, APP)))[0] == "- docker.io/me/saved:2"


def test_a_tag_that_moved_is_shown_with_every_digest_and_layer() -> None:
    assert APP.manifest is not None
    manifest = dataclasses.replace(APP.manifest, digest=digest_of("new manifest"), raw=None)
    layers = (APP.layers[0], LockedLayer(digest_of("new layer"), digest_of("new blob"), 7, "type"))
    lines = text(with_app(config=digest_of("new config"), index=digest_of("new index"), manifest=manifest, layers=layers))
    assert lines == [
        "~ docker.io/library/app:1  is another image now",
        f"    index: {APP.index} → {digest_of('new index')}",
        f"    manifest: {APP.manifest.digest} → {digest_of('new manifest')}",
        "    manifest bytes: removed",
        f"    config: {APP.config} → {digest_of('new config')}",
        "    layers: 2 layers (201 bytes) → 2 layers (107 bytes)",
        f"      - layer 1 {APP.layers[1].diff_id}, blob {APP.layers[1].blob} (101 bytes, {APP.layers[1].media_type})",
        f"      + layer 1 {digest_of('new layer')}, blob {digest_of('new blob')} (7 bytes, type)",
    ]
    data = lock_difference(OLD, with_app(config=digest_of("new config"))).data()
    assert data["images"][0]["kind"] == "moved"
    assert data["images"][0]["fields"] == [{"name": "config", "old": APP.config, "new": digest_of("new config")}]


def test_the_same_content_packed_anew_is_not_another_image() -> None:
    layers = (dataclasses.replace(APP.layers[0], blob=digest_of("zstd"), size_bytes=90), APP.layers[1])
    lines = text(with_app(layers=layers))
    assert lines[0] == "~ docker.io/library/app:1"
    assert lines[2].startswith(f"      ~ layer 0 {APP.layers[0].diff_id}: blob {APP.layers[0].blob} (100 bytes")
    (change,) = lock_difference(OLD, with_app(layers=layers)).data()["images"]
    assert change["kind"] == "changed"
    assert change["layers"][0] == {
        "kind": "repacked", "index": 0, "diff-id": APP.layers[0].diff_id, "old-blob": APP.layers[0].blob, "new-blob": digest_of("zstd"),
    }  # fmt: skip


def test_everything_else_is_a_line_of_its_own() -> None:
    assert text(dataclasses.replace(OLD, epoch=5)) == ["epoch: 1714564800 → 5"]
    assert text(with_app(platform=parse_platform("linux/amd64")))[1:] == ["    platform: linux/arm64/v8 → linux/amd64"]
    assert text(with_app(source="oci:x"))[1:] == ["    from: docker://registry.example/app:1 → oci:x"]
    assert text(with_app(created_epoch=None))[1:] == ["    created: 1714564800 → none"]
    assert text(with_app(signature=None))[1:] == ["    signature key: the key's name: ünï → none", "    signature yes: no → none"]
    assert text(with_app(config_size_bytes=1))[1:] == ["    config size: 1234 → 1"]
    unknown = text(with_app(manifest=None, index=None, layers=tuple(LockedLayer(layer.diff_id) for layer in APP.layers)))
    assert "    manifest: " + (APP.manifest.digest if APP.manifest else "") + " → unknown" in unknown
    assert any(line.endswith("→ blob unknown") for line in unknown)
