"""Everybody who reads a SquashFS, asked for every entry of an image: our reader, sqfs2tar, the kernel and unsquashfs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from memorytar import headers
from requirement import require
from shiplap.core.entries import Bytes, Entry, Kind
from shiplap.core.tar.reader import TarHeader
from shiplap.core.tar.records import KINDS
from squashfsimages import Facts, facts, facts_of_host_tree, facts_of_image, facts_of_the_kernel


def assert_every_reader_sees(image: Path, expected: Sequence[Facts], scratch: Path) -> None:
    """Each of the four sees what is ``expected``, in tree order, root first: every field, every byte, nothing else.

    Needs root (owners, devices, mounts); skips the test without.
    """
    require("tar2sqfs", "mksquashfs")
    assert not differences(facts_of_image(image), expected), "our reader"
    assert not differences(facts_of_sqfs2tar(image), as_in_a_tar(expected)), "sqfs2tar"
    assert not differences(facts_of_the_kernel(image, scratch), expected), "the kernel"
    assert not differences(facts_of_unsquashfs(image, scratch), expected), "unsquashfs"


def differences(found: Sequence[Facts], expected: Sequence[Facts]) -> list[tuple[bytes, Facts | None, Facts | None]]:
    """Path, what was found and what was expected of the first entries that differ: short where a thousand entries are compared."""
    if list(found) == list(expected):
        return []
    ours, theirs = ({one[0]: one for one in side} for side in (found, expected))
    wrong = [path for path in {**theirs, **ours} if ours.get(path) != theirs.get(path)]
    if not wrong:
        wrong = [one[0] for one, other in zip(found, expected, strict=False) if one[0] != other[0]] or [expected[-1][0]]
    return [(bytes.fromhex(path), ours.get(path), theirs.get(path)) for path in wrong[:3]]


def as_in_a_tar(expected: Sequence[Facts]) -> list[Facts]:
    """Without the attributes that have no value: in a tar these delete one."""
    return [(*one[:8], [[name, value] for name, value in one[8] if value], one[9]) for one in expected]


def facts_of_unsquashfs(image: Path, scratch: Path) -> list[Facts]:
    """What ``unsquashfs`` unpacks; it may not have a word to say."""
    if os.geteuid() != 0:
        pytest.skip("only root can unpack devices and owners")
    folder = scratch / "unpacked"
    done = subprocess.run(["unsquashfs", "-q", "-n", "-d", str(folder), str(image)], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    found = facts_of_host_tree(os.fsencode(folder))
    shutil.rmtree(folder)
    return found


def facts_of_sqfs2tar(image: Path) -> list[Facts]:
    """What the tar of ``sqfs2tar`` says, in the order of the tree. Of a further name of a file it says the first one only."""
    done = subprocess.run(["sqfs2tar", "--root-becomes", ".", "--no-skip", str(image)], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    entries: dict[bytes, Entry] = {}
    for header in headers(done.stdout):
        entry = _entry(header, done.stdout)
        assert entry.path not in entries, entry.path
        if entry.kind is Kind.HARDLINK:
            first = entries[entry.link]
            entry = replace(first, path=entry.path, kind=Kind.HARDLINK, link=first.path, device=(0, 0), xattrs=(), content=None)
        entries[entry.path] = entry
    return [facts(entry) for _, entry in sorted(entries.items(), key=lambda item: item[0].split(b"/") if item[0] else [])]


def _entry(header: TarHeader, tar: bytes) -> Entry:
    path, kind = header.name.removeprefix(b".").strip(b"/"), KINDS[header.typeflag]
    return Entry(
        path,
        kind,
        header.mode,
        header.uid,
        header.gid,
        header.mtime_epoch,
        link=header.linkname.removeprefix(b"./") if kind is Kind.HARDLINK else header.linkname,
        device=(header.devmajor, header.devminor) if kind in (Kind.CHARACTER, Kind.BLOCK) else (0, 0),
        xattrs=tuple(sorted(header.xattrs)),
        content=Bytes(tar[header.data_offset : header.data_offset + header.data_bytes]) if kind is Kind.REGULAR else None,
    )
