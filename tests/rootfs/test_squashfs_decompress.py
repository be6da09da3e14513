"""Single blocks: right when they are whole, refused when they are damaged or larger than their bound."""

from __future__ import annotations

import ctypes
import lzma
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from requirement import require
from shiplap.core.entries import Bytes, Entry, Kind
from shiplap.core.errors import ProgramMissing
from shiplap.rootfs.squashfs import open_squashfs
from shiplap.rootfs.squashfs.content import SquashfsContent
from shiplap.rootfs.squashfs.decompress import COMPRESSORS, BadBlock, Inflate, inflater
from squashfsimages import tar2sqfs

BLOCK = 131072


def blocks_of(compressor: str, contents: list[bytes], folder: Path) -> list[bytes]:
    """The compressed data blocks of an image whose files have one block each."""
    entries = [Entry(b"", Kind.DIRECTORY, 0o755)]
    entries += [Entry(b"%03d" % number, Kind.REGULAR, 0o644, content=Bytes(data)) for number, data in enumerate(contents)]
    path = tar2sqfs(folder / compressor, entries, "-c", compressor, "-b", str(BLOCK))
    raw = path.read_bytes()
    found = []
    with open_squashfs(path) as image:
        for entry in image.children(b""):
            assert isinstance(entry.content, SquashfsContent)
            (word,) = entry.content.blocks.words(entry.content.data)
            found.append(raw[entry.content.data.start : entry.content.data.start + word])
    return found


@pytest.fixture(scope="module", params=sorted(COMPRESSORS.values()))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Inflate, bytes, bytes]:
    """A decompressor, a block, and what it holds."""
    require("tar2sqfs")
    rng = random.Random(1)
    data = b"".join(rng.choice((b"plank ", b"keel ", b"rib ", b"strake ")) for _ in range(BLOCK // 4))[:BLOCK]
    (block,) = blocks_of(request.param, [data], tmp_path_factory.mktemp("blocks"))
    return inflater(request.param), block, data


def test_a_whole_block_is_decompressed(case: tuple[Inflate, bytes, bytes]) -> None:
    inflate, block, data = case
    assert inflate(block, BLOCK) == data
    assert inflate(block, 1 << 20) == data


@pytest.mark.parametrize(
    ("code", "parameters"),
    [
        # OpenWrt's xz options: -Xbcj of the machine, -Xlc 0 -Xlp 2 -Xpb 2.
        (None, {"lc": 0, "lp": 2, "pb": 2, "dict_size": 1 << 20}),
        (lzma.FILTER_ARM, {"lc": 0, "lp": 2, "pb": 2}),
        (lzma.FILTER_ARMTHUMB, {"preset": 9 | lzma.PRESET_EXTREME, "dict_size": BLOCK}),
        (lzma.FILTER_POWERPC, {"lc": 4, "lp": 0, "pb": 0, "dict_size": 8192}),
        (lzma.FILTER_X86, {"preset": 0}),
    ],
)
def test_xz_with_any_parameters_and_filter_is_decompressed(code: int | None, parameters: dict[str, int]) -> None:
    data = random.Random(4).randbytes(5000) * 26
    filters = ([] if code is None else [{"id": code}]) + [{"id": lzma.FILTER_LZMA2, "preset": 6, **parameters}]
    block = lzma.compress(data, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC32, filters=filters)
    assert inflater("xz")(block, BLOCK) == data


def test_xz_that_wants_more_memory_than_a_kernel_gives_is_refused() -> None:
    block = lzma.compress(b"x" * 1000, format=lzma.FORMAT_XZ, filters=[{"id": lzma.FILTER_LZMA2, "preset": 9}])
    with pytest.raises(BadBlock, match=r"[Mm]emory"):
        inflater("xz")(block, BLOCK)


def test_a_block_beyond_its_bound_is_refused(case: tuple[Inflate, bytes, bytes]) -> None:
    inflate, block, _ = case
    for limit_bytes in (1, 4096, BLOCK - 1):
        with pytest.raises(BadBlock):
            inflate(block, limit_bytes)


def test_a_damaged_block_never_gives_more_than_its_bound(case: tuple[Inflate, bytes, bytes]) -> None:
    inflate, block, data = case
    rng = random.Random(2)
    refused = 0
    for number in range(300):
        broken = bytearray(block[: rng.randrange(len(block))] if number % 3 == 0 else block)
        for _ in range(number % 4):
            broken[rng.randrange(len(broken))] = rng.randrange(256) if broken else 0
        try:
            assert len(inflate(bytes(broken), BLOCK)) <= BLOCK
        except BadBlock:
            refused += 1
    assert refused > 100
    assert inflate(block, BLOCK) == data, "a failure leaves nothing behind"


def test_a_cut_block_is_not_taken_for_a_whole_one(case: tuple[Inflate, bytes, bytes]) -> None:
    inflate, block, data = case
    for length in (0, 1, len(block) // 2, len(block) - 1):
        try:
            assert len(inflate(block[:length], BLOCK)) < len(data)
        except BadBlock:
            pass


@pytest.mark.parametrize("compressor", sorted(COMPRESSORS.values()))
def test_threads_do_not_disturb_each_other(compressor: str, tmp_path: Path) -> None:
    require("tar2sqfs")
    contents = [bytes([number]) * BLOCK for number in range(1, 40)]
    blocks = blocks_of(compressor, contents, tmp_path)
    inflate = inflater(compressor)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert list(pool.map(inflate, blocks, [BLOCK] * len(blocks))) == contents


@pytest.mark.parametrize(("compressor", "library"), [("lz4", "liblz4.so.1"), ("lzo", "liblzo2.so.2")])
def test_a_missing_library_is_named(compressor: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", nothing)
    with pytest.raises(ProgramMissing, match=f"{library} is not installed: this image is compressed with {compressor}"):
        inflater(compressor)
