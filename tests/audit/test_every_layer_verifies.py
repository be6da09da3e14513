"""Every layer that the rules take, however odd, goes through both stores and back to its tar."""

from __future__ import annotations

from pathlib import Path

import pytest
from archives import ImageSpec
from enginecases import CASES
from images import SAME
from memorytar import tree_of
from requirement import require
from shiplap.core.errors import Refused
from shiplap.rootfs.sinks import SquashfsOptions, open_sink
from storeimages import EPOCH, identity, stored_images, streams
from tampering import verify

GROUP = 100  # layers of one image
GROUPS = 5


def accepted() -> list[bytes]:
    layers: dict[bytes, None] = {}
    for case in (*CASES, *SAME):
        try:
            tree_of(case.layer)
        except Refused:
            continue
        if case.name != "xattr value 65536":  # SquashFS tools take no more than 65,536 bytes together
            layers[case.layer] = None
    return list(layers)


@pytest.fixture(scope="module")
def layers() -> list[bytes]:
    found = accepted()
    assert GROUP * (GROUPS - 1) < len(found) <= GROUP * GROUPS
    return found


@pytest.mark.parametrize("group", range(GROUPS))
def test_a_group_of_odd_layers_holds_in_both_forms(layers: list[bytes], tmp_path: Path, group: int) -> None:
    require("tar2sqfs")
    image = ImageSpec(layers[group * GROUP : (group + 1) * GROUP], tags=["odd:1"])
    with stored_images(tmp_path, [image]) as images:
        store = identity(images)
        sealed, data_root = streams(store)
    (tmp_path / "store.json").write_bytes(store.to_json())
    (tmp_path / "store.tar").write_bytes(data_root)
    with open_sink(SquashfsOptions(level=1, epoch=EPOCH), tmp_path / "store.squashfs") as write:
        write(sealed)
    for name in ("store.tar", "store.squashfs"):
        links = dict(verify(tmp_path / name))
        assert links["layers"].startswith(f"{len(image.layers)} tars")
