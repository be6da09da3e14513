"""Whatever the size and the parameters: the tree is the naive one, it verifies, and a change anywhere shows."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hashtrees import content, naive_area, parameters
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shiplap.verity.format import VerityParameters, format_file
from shiplap.verity.parameters import DIGEST_BYTES
from shiplap.verity.verify import verify_file

all_parameters = st.fixed_dictionaries(
    {
        "hash_name": st.sampled_from(sorted(DIGEST_BYTES)),
        "data_block_bytes": st.sampled_from([512, 1024, 2048, 4096]),
        "hash_block_bytes": st.sampled_from([512, 1024, 2048, 4096, 16384]),
        "salt": st.binary(max_size=64) | st.just(bytes(256)),
        "superblock": st.booleans(),
        "hash_type": st.sampled_from([0, 1]),
    }
).map(lambda fields: parameters(**fields))

relaxed = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


@relaxed
@given(wanted=all_parameters, blocks=st.integers(1, 300), offset_blocks=st.integers(0, 3), seed=st.integers(0, 3))
def test_the_tree_is_the_naive_one_and_verifies(wanted: VerityParameters, blocks: int, offset_blocks: int, seed: int):
    with tempfile.TemporaryDirectory() as folder:
        data, tree = Path(folder, "data"), Path(folder, "tree")
        raw = content(blocks * wanted.data_block_bytes, seed)
        data.write_bytes(raw)
        offset = offset_blocks * wanted.hash_block_bytes
        area, root = naive_area(raw, wanted)
        assert format_file(data, tree, wanted, hash_offset_bytes=offset) == root
        assert tree.read_bytes() == (bytes(offset) + area if area else b""), "veritysetup too leaves a file empty that has nothing to hold"
        assert verify_file(data, tree, root, parameters=wanted, hash_offset_bytes=offset, data_blocks=blocks) == ()


@relaxed
@given(wanted=all_parameters, blocks=st.integers(2, 300), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_in_data_or_tree_is_named_and_nothing_else_is(wanted: VerityParameters, blocks: int, place: float, bit: int):
    with tempfile.TemporaryDirectory() as folder:
        data, tree = Path(folder, "data"), Path(folder, "tree")
        data.write_bytes(content(blocks * wanted.data_block_bytes))
        root = format_file(data, tree, wanted)
        start = wanted.hash_block_bytes if wanted.superblock else 0
        for file, first, block_bytes in ((data, 0, wanted.data_block_bytes), (tree, start, wanted.hash_block_bytes)):
            raw = bytearray(file.read_bytes())
            at = first + int(place * (len(raw) - first))
            raw[at] ^= 1 << bit
            file.write_bytes(raw)
            (bad,) = verify_file(data, tree, root, parameters=wanted, data_blocks=blocks)
            assert (bad.kind, bad.offset_bytes) == ("data" if file == data else "hash", at - (at - first) % block_bytes)
            raw[at] ^= 1 << bit
            file.write_bytes(raw)
