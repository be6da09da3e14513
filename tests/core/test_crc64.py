"""CRC-64/ISO: both ways give the value that a byte-by-byte loop gives, whatever the pieces and threads."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pytest
import shiplap.core.layer.crc64 as crc64
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shiplap.core.layer.crc64 import Crc64, backend, fold

POLYNOMIAL = 0xD800000000000000  # x^64 + x^4 + x^3 + x + 1, reflected, without its highest term

try:
    import _hashlib

    LIBCRYPTO = crc64._libcrypto(_hashlib)
except ImportError:
    LIBCRYPTO = None
WAYS = [
    pytest.param(fold, id="python"),
    pytest.param(LIBCRYPTO, id="libcrypto", marks=pytest.mark.skipif(not LIBCRYPTO, reason="no libcrypto")),
]


def by_bits(data: bytes) -> bytes:
    """The definition, a bit at a time."""
    state = (1 << 64) - 1
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (POLYNOMIAL if state & 1 else 0)
    return (state ^ (1 << 64) - 1).to_bytes(8, "big")


def digest(way: crc64.Update, *pieces: bytes) -> bytes:
    checksum = Crc64(way)
    for piece in pieces:
        checksum.update(piece)
    return checksum.digest()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"", "0000000000000000"),
        (b"123456789", "b90956c775a41001"),  # the check value of CRC-64/GO-ISO in the catalogues
        (b"\0", by_bits(b"\0").hex()),
        (bytes(100_000), by_bits(bytes(100_000)).hex()),
    ],
    ids=["nothing", "check value", "a zero", "many zeros"],
)
def test_known_values(way: crc64.Update, data: bytes, value: str) -> None:
    assert digest(way, data).hex() == value


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=2000))
def test_both_ways_follow_the_definition(way: crc64.Update, data: bytes) -> None:
    assert digest(way, data) == by_bits(data)


SIZES = [1, 7, 8, 9, 63, 64, 65, 1023, 1024, 1025, 8191, 8192, 8193, 65535, 65536, 65537, 200_001]


@pytest.mark.parametrize("size", SIZES)
def test_both_ways_agree_at_the_borders_of_their_pieces(size: int) -> None:
    if LIBCRYPTO is None:
        pytest.skip("no libcrypto")
    data = bytes(value * 167 % 251 for value in range(size))
    assert digest(fold, data) == digest(LIBCRYPTO, data)


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.data_too_large, HealthCheck.too_slow])
@given(st.lists(st.integers(0, 70_000), max_size=6), st.randoms(use_true_random=False))
def test_pieces_do_not_matter(way: crc64.Update, sizes: list[int], random: object) -> None:
    pieces = [random.randbytes(size) for size in sizes]  # type: ignore[attr-defined]
    assert digest(way, *pieces) == digest(way, b"".join(pieces))


def test_threads_do_not_disturb_each_other() -> None:
    inputs = [bytes([value]) * (1000 + value * 700) for value in range(40)]
    wanted = [digest(fold, data) for data in inputs]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            for _ in range(5):
                assert list(pool.map(lambda data: digest(crc64._updater()[1], data[:900], data[900:]), inputs)) == wanted
    finally:
        sys.setswitchinterval(before)


def test_a_module_without_libcrypto_s_functions_means_python() -> None:
    assert crc64._libcrypto(ModuleType("none")) is None or LIBCRYPTO is not None  # a static Python may have them itself
    assert backend() == ("libcrypto" if LIBCRYPTO else "python")
