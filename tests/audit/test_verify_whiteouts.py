"""A store image with explicit whiteouts is held against what the rules derive: each whiteout, and no attribute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from archives import ImageSpec
from images import CAPABILITY, X, directory, file
from layertar import build
from requirement import require
from shiplap.audit.links import BrokenLink
from shiplap.core.image import chain_ids
from storeimages import explicit, identity, stored_images, streams
from tampering import Entries, Form, add, edit, verify

MARK = (b"trusted.overlay.opaque", b"y")
IMAGE = ImageSpec(
    [
        build([directory("d"), file("d/old", b"1"), file("ping", b"ping", mode=0o755, pax={X + "security.capability": CAPABILITY})]),
        build([directory("d"), file("d/.wh..wh..opq"), file("d/new", b"2")]),
    ],
    ["app:1"],
)
BASE, TOP = (f"layers/{chain[7:]}" for chain in chain_ids(tuple(IMAGE.diff_ids)))


def made(folder: Path, *, whiteouts: bool = True, says: bool = True) -> Form:
    """A store image with ``whiteouts`` or with marks, whose store.json ``says`` that it has whiteouts."""
    require("tar2sqfs")
    source, out = folder / "source", folder / "out"
    source.mkdir()
    out.mkdir()
    with stored_images(source, [IMAGE]) as images:
        plain, marked = explicit(images, allow=["/ping"]), identity(images)
        held, said = (
            Form(out, one.to_json(), streams(one)[0], image=True) for one in (plain if whiteouts else marked, plain if says else marked)
        )
    held.store_json = said.store_json
    held.entries["store.json"] = said.entries["store.json"]
    return held


def test_it_verifies(tmp_path: Path) -> None:
    form = made(tmp_path)
    assert f"{TOP}/d/old" in form.entries and not any(entry.xattrs for entry in form.entries.values())
    assert dict(verify(form.write()))["layers"].startswith("2 tars")


CHANGES: dict[str, tuple[Callable[[Entries], object], str]] = {
    "a whiteout is gone": (lambda entries: entries.pop(f"{TOP}/d/old"), "d/old' is missing"),
    "a whiteout too many": (
        lambda entries: add(entries, f"{TOP}/d/more", f"{TOP}/d/old"),
        "'d/more' is in the store, but not in the layer",
    ),
    "a whiteout of another owner": (lambda entries: edit(entries, f"{TOP}/d/old", uid=7), "has uid 7, it should have 0"),
    "a mark beside the whiteouts": (lambda entries: edit(entries, f"{TOP}/d", xattrs=(MARK,)), "has xattrs"),
    "a capability that is lost": (
        lambda entries: edit(entries, f"{BASE}/ping", xattrs=((b"security.capability", CAPABILITY),)),
        "has xattrs",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_found(tmp_path: Path, name: str) -> None:
    change, message = CHANGES[name]
    form = made(tmp_path)
    change(form.entries)
    with pytest.raises(BrokenLink, match=message):
        verify(form.write())


@pytest.mark.parametrize(("whiteouts", "says"), [(True, False), (False, True)])
def test_a_store_that_is_not_what_its_identity_says_is_refused(tmp_path: Path, whiteouts: bool, says: bool) -> None:
    with pytest.raises(BrokenLink):
        verify(made(tmp_path, whiteouts=whiteouts, says=says).write())
