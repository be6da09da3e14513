"""Salt and UUID come from content, by the rule of DESIGN.md section 2."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

import pytest
from hashtrees import content
from shiplap.verity.data import UnfitFile
from shiplap.verity.identity import file_salt, pad_file, store_image_salt, uuid_for_salt

KIB = 1024


def test_the_salt_of_a_store_image_is_the_hash_of_prefix_and_store_json():
    assert store_image_salt(b'{"format":1}\n') == hashlib.sha256(b'shiplap-verity-salt\n{"format":1}\n').digest()


@pytest.mark.parametrize("size", [0, 1, 64 * KIB - 1, 64 * KIB, 100 * KIB, 128 * KIB, 128 * KIB + 1, 1024 * KIB])
def test_the_salt_of_a_file_is_the_hash_of_size_first_and_last_64_kib(tmp_path: Path, size: int):
    file, data = tmp_path / "file", content(size)
    file.write_bytes(data)
    first, last = data[:65536], data[-65536:]
    assert file_salt(file) == hashlib.sha256(b"shiplap-verity-salt\n" + str(size).encode() + b"\n" + first + last).digest()


def test_the_uuid_is_uuid5_of_the_salts_hex():
    namespace = uuid.UUID("fa7ba89a-7b0d-4d53-8e5c-2c6d6b7c1f10")
    assert uuid_for_salt(b"\xab\xcd") == str(uuid.uuid5(namespace, "abcd"))
    assert uuid_for_salt(b"") == str(uuid.uuid5(namespace, ""))


def test_the_derived_values_are_golden(tmp_path: Path):
    """Never to be edited: they are part of what was shipped."""
    salt = store_image_salt(b'{"format":1}\n')
    assert salt.hex() == "3ca792d12176fa9f78a012c69179ffe74657ffaabba3b1f7b7d8fd4bab3832ee"
    assert uuid_for_salt(salt) == "4c990aaf-0191-53e6-b9aa-1123259f3011"


def test_a_file_that_is_none_has_no_salt(tmp_path: Path):
    with pytest.raises(UnfitFile):
        file_salt(tmp_path)


def test_padding_is_at_hand_beside_the_salt(tmp_path: Path):
    file = tmp_path / "file"
    file.write_bytes(b"x")
    before = file_salt(file)
    assert pad_file(file, 512) == 511
    assert file_salt(file) != before
