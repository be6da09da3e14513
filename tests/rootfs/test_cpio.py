"""The installer's initramfs archive: what cpio programs read from it, behind another archive too, and its bytes."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from requirement import require
from shiplap.core.entries import Bytes
from shiplap.rootfs.provision.cpio import newc_archive
from shiplap.rootfs.provision.medium import joined_initramfs

FILES = {"shiplap/install": (0o755, b"#!/bin/sh\n"), "shiplap/a/b": (0o644, b"x" * 4097), "top": (0o600, b"")}
GOLDEN = "0c7811e46a70415d6fea7135deca532534c8e3ebebd076bb823a866685e1dae1"


def unpack(archive: bytes, folder: Path, *program: str) -> None:
    folder.mkdir()
    subprocess.run([*program, "-idm"], input=archive, cwd=folder, check=True, capture_output=True)


def check(folder: Path) -> None:
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
    assert sorted(found) == ["shiplap", "shiplap/a", "shiplap/a/b", "shiplap/install", "top"]
    for name, (mode, content) in FILES.items():
        assert (found[name].stat().st_mode & 0o7777, found[name].read_bytes()) == (mode, content)
        assert int(found[name].stat().st_mtime) == 1700000000


def test_other_programs_unpack_what_was_given(tmp_path: Path) -> None:
    require("libarchive-tools", "shells")
    archive = newc_archive(FILES, 1700000000)
    for number, program in enumerate((("busybox", "cpio"), ("bsdcpio",))):
        unpack(archive, tmp_path / str(number), *program)
        check(tmp_path / str(number))


def test_the_bytes_are_those_of_the_last_release_whatever_the_order() -> None:
    archive = newc_archive(FILES, 1700000000)
    assert archive == newc_archive(dict(reversed(FILES.items())), 1700000000)
    assert hashlib.sha256(archive).hexdigest() == GOLDEN


def test_behind_another_archive_it_begins_where_the_kernel_looks_for_it() -> None:
    for odd in range(5):
        joined = b"".join(joined_initramfs(Bytes(b"\x1f" * (100 + odd)), b"070701"))
        assert joined.startswith(b"\x1f" * (100 + odd))
        assert joined.index(b"070701") % 4 == 0
        assert len(joined) - 106 - odd < 4


def test_a_large_time_does_not_break_the_fields() -> None:
    archive = newc_archive({"a": (0o644, b"")}, 1 << 40)
    assert b"FFFFFFFF" in archive and len(archive) % 4 == 0
