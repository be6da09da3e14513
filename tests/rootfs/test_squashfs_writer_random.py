"""A thousand random trees, each seen by our reader, the kernel, unsquashfs and sqfs2tar; and more that may shrink."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from randomtrees import below, random_tree
from requirement import require
from shiplap.core.entries import Entry, Kind
from shiplap.rootfs.squashfs.write import Layout
from squashfsimages import expected_facts, facts_of_image, facts_of_the_kernel
from squashfsreaders import as_in_a_tar, assert_every_reader_sees, differences, facts_of_sqfs2tar
from squashfswriting import write_image

COMPRESSIONS = {"none": None, "zstd": 1, "lz4": None, "gzip": 1, "xz": None}
LAYOUTS = [
    Layout(4096, 1_234_567_890),
    Layout(4096, tails=False, exportable=True),
    Layout(8192, 2**32 - 1, exportable=True),
    Layout(65536, tails=False),
]
TREES_AN_IMAGE = 50  # 20 images: every program starts 20 times for a thousand trees


@pytest.mark.parametrize("image", range(len(COMPRESSIONS) * len(LAYOUTS)))
def test_every_reader_sees_a_thousand_random_trees(image: int, tmp_path: Path) -> None:
    (compression, level), layout = [(one, other) for one in COMPRESSIONS.items() for other in LAYOUTS][image]
    # Each tree is a folder named after its seed: what differs names the tree to look at.
    entries = [Entry(b"", Kind.DIRECTORY, 0o711, 1, 2, image)]
    for seed in range(image * TREES_AN_IMAGE, (image + 1) * TREES_AN_IMAGE):
        entries += below(b"%04d" % seed, random_tree(random.Random(seed), layout.block_size_bytes, on_hosts=True))
    write_image(tmp_path / "image", entries, compression, level, layout, jobs=image % 3 + 1)
    assert_every_reader_sees(tmp_path / "image", expected_facts(entries), tmp_path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**64), compression=st.sampled_from(["none", "zstd", "lz4", "gzip"]), tails=st.booleans())
def test_a_random_tree_comes_out(seed: int, compression: str, tails: bool, tmp_path: Path) -> None:
    entries = random_tree(random.Random(seed))
    write_image(tmp_path / "image", entries, compression, COMPRESSIONS[compression], Layout(4096, tails=tails), jobs=2)
    assert not differences(facts_of_image(tmp_path / "image"), expected_facts(entries))


@pytest.mark.parametrize("seed", range(8))
def test_what_only_squashfs_can_hold_comes_out_too(seed: int, tmp_path: Path) -> None:
    # Names of 256 bytes, attributes of many kilobytes: no host file system has them to unpack into.
    require("tar2sqfs")
    entries = random_tree(random.Random(seed))
    write_image(tmp_path / "image", entries, "zstd", 1, Layout(4096, exportable=True))
    assert not differences(facts_of_image(tmp_path / "image"), expected_facts(entries))
    assert not differences(facts_of_sqfs2tar(tmp_path / "image"), as_in_a_tar(expected_facts(entries)))
    if all(len(name) < 256 for entry in entries for name in entry.path.split(b"/")):  # Linux's own interface ends at 255
        assert not differences(facts_of_the_kernel(tmp_path / "image", tmp_path), expected_facts(entries))
