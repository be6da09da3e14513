"""CRC-64/ISO as Go's ``hash/crc64`` computes it (table ``crc64.ISO``), the checksum in tar-split data.

The polynomial is x^64 + x^4 + x^3 + x + 1, reflected, with all bits inverted before and after. Python
has no such CRC, and a byte loop is a hundred times too slow, so two ways that treat a whole piece as
one polynomial over GF(2):

- libcrypto's ``BN_GF2m_mod_arr``, which reduces by a sparse polynomial in compiled code. Python's own
  ``_hashlib`` module is linked to libcrypto, so nothing has to be installed; a build of OpenSSL without
  binary curves lacks the function.
- folding Python integers: squaring in GF(2) only spreads exponents, so x^(64 s) = x^(4 s) + x^(3 s) +
  x^s + 1 for s a power of two, and each fold halves the piece.

Both give the same value; which one runs never shows in the bytes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from types import ModuleType

try:
    import _hashlib as _openssl
except ImportError:  # a Python built without OpenSSL
    _openssl = None  # type: ignore[assignment]

_MASK = (1 << 64) - 1
_CHECK_INPUT, _CHECK_VALUE = b"123456789", 0xB90956C775A41001
_FOLD_BYTES = 8 << 10
_COARSE_BYTES = 1 << 10
_PIECE_BYTES = 64 << 10  # stays in the processor's second-level cache: a quarter faster than 1 MiB
# 256 bytes, each the bit reversal of its index: reflected order becomes plain big-endian order.
_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))

Update = Callable[[int, bytes], int]


def _reverse64(value: int) -> int:
    return int.from_bytes(value.to_bytes(8, "little").translate(_REVERSED), "big")


def _fold_piece(state: int, piece: bytes) -> int:
    """``(piece * x^64 + state * x^(8 len)) mod P`` in plain bit order, by folding integers."""
    value = (int.from_bytes(piece.translate(_REVERSED), "big") << 64) ^ (state << (8 * len(piece)))
    bits = value.bit_length()
    span = 1
    while span * 64 * 2 < bits:
        span *= 2
    while bits > 64:
        width = 64 * span
        high = value >> width
        if high:
            value = (value & ((1 << width) - 1)) ^ high ^ (high << span) ^ (high << 3 * span) ^ (high << 4 * span)
            bits = value.bit_length()
        if bits <= width:
            span = max(1, span // 2)
    return value


def fold(state: int, data: bytes) -> int:
    """Update a plain-order ``state`` with ``data`` using Python integers only."""
    view = memoryview(data)
    for start in range(0, len(view), _FOLD_BYTES):
        state = _fold_piece(state, bytes(view[start : start + _FOLD_BYTES]))
    return state


def _libcrypto(module: ModuleType) -> Update | None:
    """An updater over libcrypto, or None where its functions are missing or wrong."""
    try:
        library = ctypes.CDLL(getattr(module, "__file__", None))
        new, from_bytes, to_bytes, reduce = library.BN_new, library.BN_bin2bn, library.BN_bn2binpad, library.BN_GF2m_mod_arr
    except (OSError, AttributeError):
        return None
    new.argtypes, new.restype = (), ctypes.c_void_p
    from_bytes.argtypes, from_bytes.restype = (ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    to_bytes.argtypes, to_bytes.restype = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int), ctypes.c_int
    exponents = (ctypes.c_int * 6)(64, 4, 3, 1, 0, -1)
    # The same polynomial to the 64th power is as sparse, and all its exponents are whole words: libcrypto
    # reduces by it more than twice as fast. What is left is short.
    coarse = (ctypes.c_int * 6)(4096, 256, 192, 64, 0, -1)
    reduce.argtypes, reduce.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int * 6), ctypes.c_int
    zeros = bytes(8)

    def update(state: int, data: bytes) -> int:
        # The number is this call's own, so that threads can update different checksums at once.
        try:
            number = numbers.pop()
        except IndexError:
            number = new()
        padded = data.translate(_REVERSED) + zeros
        if state:
            padded = (int.from_bytes(padded[:8], "big") ^ state).to_bytes(8, "big") + padded[8:]
        held = from_bytes(padded, len(padded), number)
        if held and len(data) > _COARSE_BYTES:
            held = reduce(number, number, coarse)
        if not held or not reduce(number, number, exponents):
            raise MemoryError("libcrypto could not hold a piece of a file")
        result = ctypes.create_string_buffer(8)
        if to_bytes(number, result, 8) != 8:
            raise AssertionError("libcrypto's remainder is longer than the modulus allows")
        numbers.append(number)
        return int.from_bytes(result.raw, "big")

    numbers: list[int] = []  # idle BIGNUMs, used again instead of freed: as many as threads
    return update if _finish(update(_MASK, _CHECK_INPUT)) == _CHECK_VALUE else None


def _finish(state: int) -> int:
    return _reverse64(state) ^ _MASK


@cache
def _updater() -> tuple[str, Update]:
    fast = _libcrypto(_openssl) if _openssl is not None else None
    return ("libcrypto", fast) if fast is not None else ("python", fold)


def backend() -> str:
    """Which way is in use: ``libcrypto`` or ``python`` (slower, same values)."""
    return _updater()[0]


class Crc64:
    """A running CRC-64/ISO."""

    __slots__ = ("_state", "_update")

    def __init__(self, update: Update | None = None) -> None:
        self._update = update or _updater()[1]
        self._state = _MASK

    def update(self, data: bytes) -> None:
        for start in range(0, len(data), _PIECE_BYTES):
            self._state = self._update(self._state, data[start : start + _PIECE_BYTES])

    def digest(self) -> bytes:
        """8 bytes, big-endian, as tar-split stores it."""
        return _finish(self._state).to_bytes(8, "big")
