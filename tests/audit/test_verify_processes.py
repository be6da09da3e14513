"""Layers that are verified at the same time, and blocks that are read ahead: the results and the first fault are the same."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from requirement import require
from shiplap.audit import chain, storeview
from shiplap.audit.links import BrokenLink
from shiplap.audit.reassembly import Assembled, reassemble
from shiplap.core.entries import Bytes, Content
from shiplap.core.errors import OutsideFailure, ShiplapError
from shiplap.core.image import chain_ids
from shiplap.core.layer.crc64 import Crc64
from shiplap.core.layer.tarsplit import FilePart, Segment, TarSplitCorrupt
from storeimages import APP_IMAGE
from tampering import Form, Made, edit, rewrite, verify

BASE, APP = (digest.partition(":")[2] for digest in chain_ids(tuple(APP_IMAGE.diff_ids)))


@pytest.fixture
def image(made: Made, tmp_path: Path) -> Form:
    require("tar2sqfs")
    return Form(tmp_path, made.store_json, made.sealed, image=True)


@pytest.fixture
def several(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several processes, whatever the size."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one processor")
    monkeypatch.setattr(chain, "_ALONE_BYTES", 0)


@pytest.mark.usefixtures("several")
def test_several_processes_find_what_one_finds(image: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = image.write()
    together = verify(folder)
    monkeypatch.setattr(chain, "_PROCESSES_MAX", 1)
    assert verify(folder) == together


@pytest.mark.usefixtures("several")
def test_the_first_fault_in_the_order_of_the_layers_is_told(image: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    # The later layer's fault shows at its first entry, the earlier one's at the end of a file.
    edit(image.entries, image.layer(APP, "srv/app"), mode=0o600)
    rewrite(image.entries, image.layer(BASE, "bin/sh"), lambda data: data[:-1] + b"?")
    folder = image.write()
    messages = set()
    for processes in (1, 8, 8):
        monkeypatch.setattr(chain, "_PROCESSES_MAX", processes)
        with pytest.raises(BrokenLink) as caught:
            verify(folder)
        messages.add(caught.value.message)
    assert len(messages) == 1
    assert "bin/sh" in messages.pop()


@pytest.mark.usefixtures("several")
def test_a_process_that_is_killed_is_a_failure_and_no_difference(image: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "_check_elsewhere", die)
    with pytest.raises(OutsideFailure, match="a process that verified a layer was killed"):
        verify(image.write())


@pytest.mark.usefixtures("several")
def test_nobody_waits_for_other_layers_once_there_is_a_fault(image: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "_check_elsewhere", fail_or_sleep)
    start = time.monotonic()
    with pytest.raises(BrokenLink, match="the first layer"):
        verify(image.write())
    assert time.monotonic() - start < 60


def fail_or_sleep(location: object, store_json: bytes, number: int, limits: object) -> object:
    if number:
        time.sleep(120)
    return chain._Fault(BrokenLink, "the first layer", None)


def die(*arguments: object) -> None:
    os._exit(9)


@pytest.mark.parametrize("compressors", [(), ("zstd",)])
def test_reading_ahead_changes_nothing(compressors: tuple[str, ...], image: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = verify(image.write())
    monkeypatch.setattr(storeview, "_DEAR_COMPRESSORS", compressors)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert verify(image.folder) == plain


# --- one tar


class Broken:
    """A content that fails after its first bytes."""

    size_bytes = 300_000

    def chunks(self) -> Iterator[bytes]:
        yield b"x" * 100_000
        raise ShiplapError("the disk")

    def slice(self) -> None:
        return None


def part(name: bytes, data: bytes, checksum: bytes | None = None) -> FilePart:
    crc = Crc64()
    crc.update(data)
    return FilePart(name, len(data), checksum or crc.digest())


def assembled(parts: list[Segment | FilePart], contents: dict[bytes, Content], *, threads: bool) -> tuple[bytes, Assembled]:
    spool = BytesIO()
    made = reassemble(
        parts, lambda one, _: contents[one.name], lambda one: True, spool, lambda amount_bytes: None, what="a layer", threads=threads
    )
    return spool.getvalue(), made


LARGE, SMALL = bytes(range(256)) * 12_000, b"small"


@pytest.mark.parametrize("threads", [False, True])
def test_a_tar_is_put_together_with_its_checksums(threads: bool) -> None:
    parts = [
        Segment(b"head"),
        part(b"large", LARGE),
        Segment(b"between"),
        part(b"small", SMALL),
        FilePart(b"empty", 0, b""),
        Segment(b"end"),
    ]
    tar, made = assembled(parts, {b"large": Bytes(LARGE), b"small": Bytes(SMALL)}, threads=threads)
    assert tar == b"head" + LARGE + b"between" + SMALL + b"end"
    assert made.size_bytes == len(tar)
    assert made.checksums == {4: part(b"", LARGE).checksum, 4 + len(LARGE) + 7: part(b"", SMALL).checksum}


@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.parametrize("fault", ["another checksum", "shorter", "longer"])
@pytest.mark.parametrize("data", [LARGE, SMALL])
def test_a_file_that_does_not_fit_is_named_before_what_comes_later(data: bytes, fault: str, threads: bool) -> None:
    contents: dict[bytes, Content] = {b"wrong": Bytes(data), b"later": Broken()}
    wrong = part(b"wrong", data, b"12345678") if fault == "another checksum" else part(b"wrong", data)
    if fault != "another checksum":
        contents[b"wrong"] = Bytes(data[:-1] if fault == "shorter" else data + b"x")
    with pytest.raises(TarSplitCorrupt, match="the content of 'wrong' does not fit its size and checksum"):
        assembled([Segment(b"head"), wrong, FilePart(b"later", 300_000, b"12345678")], contents, threads=threads)


@pytest.mark.parametrize("threads", [False, True])
def test_a_fault_of_its_own_is_raised_as_it_is(threads: bool) -> None:
    with pytest.raises(ShiplapError, match="the disk"):
        assembled([FilePart(b"later", 300_000, b"12345678")], {b"later": Broken()}, threads=threads)
