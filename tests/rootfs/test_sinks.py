"""The sinks with the real tools: what goes in comes out, always in the same bytes, and failures are told."""

from __future__ import annotations

import io
import os
import re
import resource
import signal
import stat
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from requirement import require
from shiplap.core.entries import Bytes, Entry, Kind
from shiplap.core.errors import OutsideFailure, ProgramMissing, Refused
from shiplap.core.imageform import SQUASHFS_LEVELS, SQUASHFS_TOOLS_OF
from shiplap.core.run import find
from shiplap.core.tar.records import write_records
from shiplap.rootfs.sinks import TOOLS, SquashfsOptions, SquashfsOptionsError, describe_tool, open_sink
from shiplap.rootfs.sinks.options import Write
from shiplap.rootfs.sinks.program import PipeBuffer
from shiplap.rootfs.sinks.tarfed import TarFed
from shiplap.rootfs.squashfs import open_squashfs
from sinktools import prepared, use_as
from squashfsimages import (
    expected_facts,
    facts_of_image,
    facts_of_the_kernel,
    small_tree,
    tar_of,
    torture_tree,
    tree_order,
)

# A faulty version may be all there is to test with.
ACCEPTED = tuple(f"4.7.{number}" for number in range(6))


@pytest.fixture(params=sorted(TOOLS))
def tool(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of each tool that is installed, fit to be used."""
    return prepared(request.param, tmp_path, monkeypatch)


@pytest.fixture(params=sorted(name for name, sink in TOOLS.items() if isinstance(sink, TarFed)))
def tar_tool(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same of the tools that read a tar stream."""
    return prepared(request.param, tmp_path, monkeypatch)


def open_pipe(options: SquashfsOptions, output: Path) -> AbstractContextManager[Write]:
    """The tool's own pipe, for streams that no entries make."""
    sink = TOOLS[options.tool]
    assert isinstance(sink, TarFed)
    return sink.tool.open(options, output)


def write(options: SquashfsOptions, output: Path, entries: list[Entry]) -> Path:
    with open_sink(options, output) as add:
        for entry in entries:
            add(entry)
    return output


@pytest.mark.parametrize(
    ("compression", "level", "block_size_bytes"),
    [
        ("zstd", None, 131072),
        ("zstd", 3, 1 << 20),
        ("gzip", 9, 4096),
        ("xz", None, 262144),
        ("lz4", None, 65536),
        ("lzo", 5, 16384),
        ("none", None, 8192),
    ],
)
def test_what_goes_into_a_sink_comes_out(tool: str, compression: str, level: int | None, block_size_bytes: int, tmp_path: Path) -> None:
    if tool not in SQUASHFS_TOOLS_OF.get(compression, (tool,)):
        pytest.skip(f"{tool} does not write {compression}")
    options = SquashfsOptions(tool, compression, level, block_size_bytes, epoch=1_700_000_000, allow_tool=ACCEPTED)
    entries = torture_tree(block_size_bytes, largest_xattr_bytes=60_000)
    image = write(options, tmp_path / "image", entries)
    assert facts_of_image(image) == expected_facts(entries)
    with open_squashfs(image) as opened:
        superblock = opened.superblock
    named = "gzip" if compression == "none" else compression
    assert (superblock.mtime_epoch, superblock.compressor, superblock.block_size_bytes) == (1_700_000_000, named, block_size_bytes)
    assert not superblock.exportable
    if (compression, level) == ("zstd", None):
        assert facts_of_image(image) == facts_of_the_kernel(image, tmp_path)


def test_the_root_keeps_everything_it_has(tool: str, tmp_path: Path) -> None:
    xattrs = (
        (b"security.selinux", b"system_u:object_r:root_t:s0\0"),
        (b"trusted.overlay.opaque", b"y"),
        (b"user.b", bytes(range(256)) * 150),
    )
    root = Entry(b"", Kind.DIRECTORY, 0o3751, 2**32 - 2, 70_000, 2**32 - 1, xattrs=xattrs)
    image = write(SquashfsOptions(tool, epoch=5, allow_tool=ACCEPTED), tmp_path / "image", [root])
    assert facts_of_image(image) == expected_facts([root])


def test_a_stream_without_a_root_gets_a_plain_one(tool: str, tmp_path: Path) -> None:
    file = Entry(b"file", Kind.REGULAR, 0o644, content=Bytes(b"x" * 300_000))
    image = write(SquashfsOptions(tool, epoch=77, allow_tool=ACCEPTED), tmp_path / "image", [file])
    assert facts_of_image(image) == expected_facts([Entry(b"", Kind.DIRECTORY, 0o755, mtime_epoch=77), file])


def test_a_stream_may_come_in_any_pieces(tar_tool: str, tmp_path: Path) -> None:
    tar = tar_of(small_tree())
    images = []
    for size in (1, 511, 4096, len(tar)):
        output = tmp_path / f"image{size}"
        with open_pipe(SquashfsOptions(tar_tool, allow_tool=ACCEPTED), output) as stream:
            for start in range(0, len(tar), size):
                stream(tar[start : start + size])
        images.append(output.read_bytes())
    assert len(set(images)) == 1
    assert facts_of_image(tmp_path / "image1") == expected_facts(small_tree())


def test_partial_writes_are_finished() -> None:
    # A signal can cut a write to a full pipe short; io.RawIOBase says so in its return value.
    class Trickle(io.RawIOBase):
        def __init__(self) -> None:
            self.received = bytearray()

        def write(self, data: Any, /) -> int:
            self.received += memoryview(data)[:1000]
            return min(1000, len(memoryview(data)))

    pipe = Trickle()
    buffer = PipeBuffer(pipe)  # type: ignore[arg-type]
    for number in range(20):
        buffer.write(bytes([number]) * 33_333)
    buffer.flush()
    assert pipe.received == b"".join(bytes([number]) * 33_333 for number in range(20))


def in_a_child(work: Callable[[], None]) -> int:
    """Run ``work`` in a forked process, which may change what it likes; its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:
            print(repr(error), file=sys.stderr)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder in which everybody may write (pytest's own belong to one user)."""
    with tempfile.TemporaryDirectory(prefix="shiplap-sinks-") as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


def test_the_bytes_depend_on_nothing_but_stream_and_options(tool: str, open_folder: Path, tmp_path: Path) -> None:
    entries = torture_tree(16384)
    options = SquashfsOptions(tool, block_size_bytes=16384, level=3, epoch=1_234_567_890, allow_tool=ACCEPTED)

    def environment(**values: str) -> None:
        os.environ.update(values)

    def nobody() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)

    variations: dict[str, tuple[int | None, Callable[[], object]]] = {
        "plain": (None, lambda: None),
        "one job": (1, lambda: os.umask(0o077)),
        "seven jobs": (7, lambda: os.umask(0)),
        "elsewhere": (2, lambda: os.chdir("/")),
        "another clock": (2, lambda: environment(TZ="Asia/Tokyo", LC_ALL="de_DE.UTF-8", LANG="C", SOURCE_DATE_EPOCH="12345")),
    }
    if os.geteuid() == 0:
        variations["nobody"] = (3, nobody)
        # mksquashfs reads a link of the test's own folder, which nobody may not enter.
        os.chmod(tmp_path, 0o755)
    found = {}
    for name, (jobs, change) in variations.items():
        output = open_folder / f"image {name}"

        def work(jobs: int | None = jobs, change: Callable[[], object] = change, output: Path = output) -> None:
            change()
            write(replace(options, jobs=jobs), output, entries)

        if name == "nobody" and tool == "mksquashfs" and not _reachable(tmp_path):
            continue
        assert in_a_child(work) == 0, name
        found[name] = output.read_bytes()
    assert len(set(found.values())) == 1, [name for name in found if found[name] != found["plain"]]


def _reachable(path: Path) -> bool:
    """Whether everybody may enter ``path``."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


def test_the_level_changes_the_bytes_and_none_means_the_stated_default(tool: str, tmp_path: Path) -> None:
    entries = torture_tree(65536)
    for compression, levels in SQUASHFS_LEVELS.items():
        if levels is None or tool not in SQUASHFS_TOOLS_OF.get(compression, (tool,)):
            continue
        images = []
        for level in (None, levels[0], levels[1]):
            options = SquashfsOptions(tool, compression, level, 65536, allow_tool=ACCEPTED)
            images.append(write(options, tmp_path / f"{compression}-{level}-{len(images)}", entries).read_bytes())
        assert images[0] == images[1] != images[2], compression


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"tool": "sqfstar"}, "'sqfstar' is no SquashFS tool"),
        ({"tool": "builtin", "compression": "lzo"}, "builtin does not write lzo"),
        ({"tool": "mksquashfs", "compression": "none"}, "mksquashfs does not write none"),
        ({"compression": "brotli"}, "'brotli' is no compression of SquashFS"),
        ({"compression": "lzma"}, "'lzma' is no compression of SquashFS"),
        ({"level": 0}, "0 is no level of zstd, which has 1 to 22"),
        ({"level": 23}, "23 is no level of zstd"),
        ({"compression": "gzip", "level": 10}, "10 is no level of gzip, which has 1 to 9"),
        ({"compression": "xz", "level": 6}, "xz has no level"),
        ({"block_size_bytes": 2048}, "2048 bytes is no power of two"),
        ({"block_size_bytes": 1 << 21}, "no power of two"),
        ({"block_size_bytes": 100_000}, "100000 bytes is no power of two"),
        ({"block_size_bytes": 0}, "no power of two"),
        ({"epoch": -1}, "time -1 does not fit"),
        ({"epoch": 1 << 32}, "time 4294967296 does not fit"),
        ({"jobs": 0}, "0 jobs cannot work"),
    ],
)
def test_options_that_cannot_be_are_refused(changes: dict[str, int], match: str, tmp_path: Path) -> None:
    options = replace(SquashfsOptions(), **changes)  # type: ignore[arg-type]
    with pytest.raises(SquashfsOptionsError, match=match), open_sink(options, tmp_path / "image"):
        pass
    with pytest.raises(SquashfsOptionsError, match=match):
        describe_tool(options)
    assert not list(tmp_path.iterdir())


def test_the_tool_is_described_for_the_record(tool: str) -> None:
    found = describe_tool(SquashfsOptions(tool, allow_tool=ACCEPTED))
    assert found["tool"] == tool
    assert found["version"][0].isdigit()
    assert (found["compression"], found["level"], found["block-size"]) == ("zstd", "15", "131072")
    assert re.match(r"libzstd(\.so\.| \d)", found.get("library", "libzstd.so."))
    assert "level" not in describe_tool(SquashfsOptions(tool, "xz", allow_tool=ACCEPTED))


def test_the_compressors_library_is_told(tmp_path: Path) -> None:
    require("tar2sqfs")
    if Path(find("tar2sqfs", package="")).read_bytes()[:4] != b"\x7fELF":
        pytest.skip("tar2sqfs is a script around the program here")
    for compression, library in (("zstd", "libzstd.so.1."), ("xz", "liblzma.so.5."), ("gzip", "libz.so.1.")):
        assert describe_tool(SquashfsOptions("tar2sqfs", compression))["library"].startswith(library)


def test_a_missing_tool_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for tool, package in (("tar2sqfs", "squashfs-tools-ng"), ("mksquashfs", "squashfs-tools")):
        monkeypatch.setattr("shutil.which", lambda *_, **__: None)
        with (
            pytest.raises(ProgramMissing, match=f"{tool} is not installed") as caught,
            open_sink(SquashfsOptions(tool), tmp_path / "image"),
        ):
            pass
        assert package in str(caught.value.hint)


def fake_mksquashfs(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that says it is mksquashfs of that version, and can do nothing else."""
    script = tmp_path / "fake"
    script.write_text(f"#!/bin/sh\necho 'mksquashfs version {version} (2025/01/01)'\n")
    script.chmod(0o755)
    use_as(script, "mksquashfs", tmp_path, monkeypatch)


@pytest.mark.parametrize("version", ["4.4", "4.5", "4.5.1"])
def test_an_old_mksquashfs_is_refused_with_the_reason(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_mksquashfs(version, tmp_path, monkeypatch)
    with (
        pytest.raises(ProgramMissing, match=rf"mksquashfs {version} is too old: it gives the root directory .* mode 0777"),
        open_sink(SquashfsOptions("mksquashfs"), tmp_path / "image"),
    ):
        pass


@pytest.mark.parametrize("version", ["4.7", "4.7.1", "4.7.5"])
def test_a_faulty_mksquashfs_is_refused_unless_it_is_allowed(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_mksquashfs(version, tmp_path, monkeypatch)
    for allowed in ((), ("4.6.1",), ("4.7.9", "mksquashfs")):
        with (
            pytest.raises(Refused, match=rf"mksquashfs {version} is refused: .* data races") as caught,
            open_sink(SquashfsOptions("mksquashfs", allow_tool=allowed), tmp_path / "image"),
        ):
            pass
        assert f'"{version}"' in str(caught.value.hint)
    for accepted in (version, f"mksquashfs-{version}"):
        # The fake says something on its way out and writes nothing: it was started, that is what counts here.
        with (
            pytest.raises(OutsideFailure, match=r"mksquashfs (warned|ended before)"),
            open_pipe(SquashfsOptions("mksquashfs", allow_tool=(accepted,)), tmp_path / "image") as stream,
        ):
            write_records(small_tree(), stream)


def test_a_newer_mksquashfs_needs_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("4.6", "4.6.1", "4.7.6", "4.8", "5.0"):
        fake_mksquashfs(version, tmp_path, monkeypatch)
        with pytest.raises(OutsideFailure, match=r"warned|ended before"), open_sink(SquashfsOptions("mksquashfs"), tmp_path / "image"):
            pass


def test_an_unknown_mksquashfs_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "fake"
    script.write_text("#!/bin/sh\necho something else\n")
    script.chmod(0o755)
    use_as(script, "mksquashfs", tmp_path, monkeypatch)
    with pytest.raises(OutsideFailure, match="does not say its version but: something else"):
        describe_tool(SquashfsOptions("mksquashfs"))


def test_an_existing_output_is_left_alone(tool: str, tmp_path: Path) -> None:
    output = tmp_path / "image"
    output.write_bytes(b"precious")
    options = SquashfsOptions(tool, allow_tool=ACCEPTED)
    with pytest.raises(OutsideFailure, match="exists already"), open_sink(options, output):
        pass
    assert output.read_bytes() == b"precious"


def test_when_the_body_fails_nothing_is_left(tool: str, tmp_path: Path) -> None:
    output = tmp_path / "image"
    for error in (KeyboardInterrupt(), ValueError("the body's own")):
        with pytest.raises(type(error)), open_sink(SquashfsOptions(tool, allow_tool=ACCEPTED), output) as add:
            for entry in small_tree()[:4]:
                add(entry)
            raise error
        assert not output.exists()


def test_a_stream_that_is_cut_off_is_a_failure_in_the_tools_words(tar_tool: str, tmp_path: Path) -> None:
    tar = tar_of([Entry(b"", Kind.DIRECTORY, 0o755), Entry(b"file", Kind.REGULAR, 0o644, content=Bytes(b"x" * 200_000))])
    options = SquashfsOptions(tar_tool, allow_tool=ACCEPTED)
    with (
        pytest.raises(OutsideFailure, match=f"{tar_tool} failed with exit code 1: .*(end-of-file|truncated)"),
        open_pipe(options, tmp_path / "image") as stream,
    ):
        stream(tar[:100_000])


def test_an_attribute_that_squashfs_cannot_store_fails_the_build_and_is_not_dropped(tool: str, tmp_path: Path) -> None:
    acl = ((b"system.posix_acl_access", b"\x02\0\0\0"),)
    entries = [Entry(b"", Kind.DIRECTORY, 0o755), Entry(b"file", Kind.REGULAR, 0o644, content=Bytes(b""), xattrs=acl)]
    with pytest.raises((OutsideFailure, Refused), match="posix_acl"):
        write(SquashfsOptions(tool, allow_tool=ACCEPTED), tmp_path / "image", entries)
    assert not (tmp_path / "image").exists()


def test_a_folder_that_is_not_there_is_a_failure(tool: str, tmp_path: Path) -> None:
    with pytest.raises(OutsideFailure, match="No such file"):
        write(SquashfsOptions(tool, allow_tool=ACCEPTED), tmp_path / "nowhere" / "image", small_tree())


def test_a_full_disk_is_one_clear_failure(tool: str, tmp_path: Path) -> None:
    noise = os.urandom(4 << 20)
    entries = tree_order([Entry(b"", Kind.DIRECTORY, 0o755), Entry(b"noise", Kind.REGULAR, 0o644, content=Bytes(noise))])
    output = tmp_path / "image"

    def work() -> None:
        # A limit on file sizes instead of a disk that is full: tools meet both in the same write.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            write(SquashfsOptions(tool, level=1, allow_tool=ACCEPTED), output, entries)
        except OutsideFailure as error:
            assert tool in error.message
            return
        raise AssertionError("the limit was not met")

    assert in_a_child(work) == 0
    assert not output.exists()


def test_one_owner_too_many_does_not_leave_a_broken_image(tool: str, tmp_path: Path) -> None:
    # The superblock counts owners in 16 bits. With 65,536 the tools wrap to 0 and end well.
    # In many directories: both tools compare a new name with all others of its directory.
    folders = [Entry(b"%02x" % number, Kind.DIRECTORY, 0o755, 1, 1) for number in range(256)]
    owners = tree_order(folders + [Entry(b"%02x/%02x" % divmod(owner, 256), Kind.FIFO, 0o644, owner, owner) for owner in range(1, 65536)])
    options = SquashfsOptions(tool, level=1, allow_tool=ACCEPTED)
    what = "more than 65535 different owners" if tool == "builtin" else f"{tool} ended well but left an image that cannot be read"
    with pytest.raises((OutsideFailure, Refused), match=what):
        write(options, tmp_path / "broken", [Entry(b"", Kind.DIRECTORY, 0o755), *owners])
    assert not (tmp_path / "broken").exists()


def test_a_tool_that_does_not_follow_its_options_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("tar2sqfs")
    script = tmp_path / "wrapper"
    script.write_text(f'#!/bin/sh\nexec {find("tar2sqfs", package="")} "$@" --defaults mtime=1\n')
    script.chmod(0o755)
    use_as(script, "tar2sqfs", tmp_path, monkeypatch)
    write(SquashfsOptions("tar2sqfs", epoch=1), tmp_path / "image", small_tree())
    with pytest.raises(OutsideFailure, match=r"tar2sqfs did not follow its options: .* the time 1, asked for were zstd, 131072 and 2"):
        write(SquashfsOptions("tar2sqfs", epoch=2), tmp_path / "other", small_tree())


def test_a_name_that_looks_like_an_option_is_a_name(tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(SquashfsOptions(tool, allow_tool=ACCEPTED), Path("--help"), small_tree())
    assert struct.unpack("<4s", (tmp_path / "--help").read_bytes()[:4]) == (b"hsqs",)
