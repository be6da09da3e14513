"""images.tar: the same bytes from whatever source and host, every layer once, nothing unverified."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import archiveimages
import layertar
import libarchive as libarchive_c
import pytest
from archiveimages import APP, BASE, EPOCH, MIDDLE, NAMELESS, TOOL, TOP, MemoryBlob, compressed_copy, fixed_images, image, in_file
from hypothesis import given, settings
from hypothesis import strategies as st
from shiplap.core import archive
from shiplap.core.archive import Archive, ArchiveImage, ArchiveRefused, archive_name, write_images_tar
from shiplap.core.compression import uncompressed
from shiplap.core.entries import CHUNK_BYTES, FileSlice
from shiplap.core.errors import OutsideFailure, Refused
from shiplap.core.image import Image, Layer
from shiplap.core.layer.spool import DiffIDMismatch
from shiplap.core.libarchive import compression_record, ustar
from shiplap.core.limits import Limits
from shiplap.core.reference import ReferenceInvalid
from shiplap.core.tar.reader import TarHeader, read_headers
from shiplap.core.tar.window import Window

GOLDEN = "37794e605d0ac0541bad36eebbba0bb129e15c19fe8752254f1e60aa1585985f"
ROOT = Path(__file__).resolve().parents[2]


def written(images: list[ArchiveImage], **options: Any) -> tuple[bytes, Archive]:
    output = io.BytesIO()
    made = write_images_tar(images, output.write, **{"epoch": EPOCH, "limits": Limits(), **options})
    return output.getvalue(), made


@contextmanager
def as_file(data: bytes) -> Iterator[FileSlice]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        yield FileSlice(file.fileno(), 0, len(data))


def members(data: bytes) -> dict[str, tuple[TarHeader, bytes]]:
    """Read back by our exact reader: name -> (header, content), in the archive's order."""
    with as_file(data) as file:
        window = Window(file)
        return {one.name.decode(): (one, window.read(one.data_offset, one.data_bytes)) for one in read_headers(window)}


def blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


# --- what is inside ---


def test_the_fixed_images_give_the_golden_bytes() -> None:
    data, made = written(fixed_images())
    assert hashlib.sha256(data).hexdigest() == made.sha256 == GOLDEN
    assert len(data) == made.size_bytes


def test_configs_come_first_then_layers_then_the_manifest_each_sorted_and_once() -> None:
    data, made = written(fixed_images())
    configs = sorted(blob(one.config_digest) for one in (APP, TOOL, NAMELESS))
    layers = sorted(blob(digest) for digest in {*APP.diff_ids, *TOOL.diff_ids})
    assert list(members(data)) == [*configs, *layers, "manifest.json"]
    assert [blob(diff_id) for diff_id, _ in made.layers] == layers


def test_every_blob_is_what_its_name_says_and_layers_are_plain_tars() -> None:
    found = members(written(fixed_images())[0])
    for name, (_, content) in found.items():
        if name != "manifest.json":
            assert name == "blobs/sha256/" + hashlib.sha256(content).hexdigest()
    assert found[blob(APP.diff_ids[0])][1] == BASE
    assert found[blob(TOOL.config_digest)][1] == TOOL.config


def test_every_member_is_a_0644_file_of_0_0_at_the_epoch() -> None:
    for one, _ in members(written(fixed_images())[0]).values():
        assert (one.typeflag, one.mode, one.uid, one.gid, one.mtime_epoch, one.mtime_nanoseconds) == (b"0", 0o644, 0, 0, EPOCH, 0)


def test_the_manifest_sorts_images_by_config_and_full_references_by_name() -> None:
    raw = members(written(fixed_images())[0])["manifest.json"][1]
    by_config = {
        APP.config_digest: ["docker.io/library/app:1", "docker.io/library/app:latest"],
        TOOL.config_digest: ["registry.example.org:5000/team/tool:v2.0"],
        NAMELESS.config_digest: None,
    }
    images = {one.config_digest: one for one in (APP, TOOL, NAMELESS)}
    expected = [
        {"Config": blob(digest), "Layers": [blob(diff_id) for diff_id in images[digest].diff_ids], "RepoTags": by_config[digest]}
        for digest in sorted(images)
    ]
    assert json.loads(raw) == expected
    assert raw == json.dumps(expected, separators=(",", ":")).encode() + b"\n"


def test_what_an_archive_cannot_carry_is_noted_and_the_rest_is_written() -> None:
    notes = written(fixed_images())[1].notes
    assert len(notes) == 2
    assert notes[0].startswith("docker.io/library/app@sha256:1111") and "digest reference" in notes[0]
    assert NAMELESS.config_digest in notes[1] and "no tag" in notes[1]


def test_a_reference_with_tag_and_digest_keeps_its_tag() -> None:
    digest = "sha256:" + "2" * 64
    data, made = written([ArchiveImage(APP, (f"docker.io/library/app:1@{digest}",))])
    assert json.loads(members(data)["manifest.json"][1])[0]["RepoTags"] == ["docker.io/library/app:1"]
    assert len(made.notes) == 1 and digest in made.notes[0]


def test_one_config_given_twice_is_one_image_with_all_its_references() -> None:
    twice = [ArchiveImage(APP, ("docker.io/library/app:1",)), ArchiveImage(compressed_copy(APP), ("docker.io/library/app:2", "app:1"))]
    once = [ArchiveImage(APP, ("docker.io/library/app:2", "docker.io/library/app:1"))]
    assert written(twice)[0] == written(once)[0]


def test_an_image_without_layers_can_be_carried() -> None:
    found = members(written([ArchiveImage(image([]), ("docker.io/library/none:1",))])[0])
    assert json.loads(found["manifest.json"][1])[0]["Layers"] == []


def test_progress_hears_of_every_layer_once_and_of_its_uncompressed_bytes() -> None:
    class Recorder:
        def __init__(self) -> None:
            self.tasks: list[str] = []
            self.notes: list[str] = []
            self.advanced = 0

        @contextmanager
        def task(self, label: str, total_bytes: int | None = None) -> Iterator[Recorder]:
            self.tasks.append(label)
            yield self

        def advance(self, amount_bytes: int) -> None:
            self.advanced += amount_bytes

        def note(self, message: str) -> None:
            self.notes.append(message)

    recorder = Recorder()
    _, made = written([ArchiveImage(compressed_copy(one.image), one.references) for one in fixed_images()], progress=recorder)
    assert recorder.tasks == [f"images.tar: layer {number}/4" for number in (1, 2, 3, 4)]
    assert recorder.advanced == sum(size_bytes for _, size_bytes in made.layers)
    assert tuple(recorder.notes) == made.notes


# --- compression ---


@pytest.mark.parametrize(("compression", "name"), [("gzip", "images.tar.gz"), ("zstd", "images.tar.zst"), ("xz", "images.tar.xz")])
def test_a_compressed_archive_holds_exactly_the_uncompressed_one(compression: str, name: str) -> None:
    plain, _ = written(fixed_images())
    data, made = written(fixed_images(), compression=compression, level=1)
    assert b"".join(uncompressed([data], location="test", limit_bytes=1 << 30)) == plain
    assert len(data) < len(plain)
    assert (made.sha256, made.size_bytes) == (GOLDEN, len(plain))
    assert made.compression == compression_record(compression, 1)
    assert archive_name(compression) == name


def test_an_uncompressed_archive_says_so() -> None:
    assert written(fixed_images())[1].compression == {"compressor": "none"}
    assert archive_name() == "images.tar"


# --- variation ---


def test_source_compression_and_order_of_the_images_change_nothing() -> None:
    other = [ArchiveImage(compressed_copy(one.image), tuple(reversed(one.references))) for one in reversed(fixed_images())]
    assert written(other)[0] == written(fixed_images())[0]


def test_familiar_and_full_references_are_the_same() -> None:
    short = [ArchiveImage(APP, ("app:1", "docker.io/other/app:2"))]
    full = [ArchiveImage(APP, ("docker.io/library/app:1", "docker.io/other/app:2"))]
    assert written(short)[0] == written(full)[0]


def test_another_epoch_is_another_archive_that_differs_in_times_only() -> None:
    first, second = written(fixed_images())[0], written(fixed_images(), epoch=EPOCH + 1)[0]
    assert first != second
    assert {name: content for name, (_, content) in members(first).items()} == {
        name: content for name, (_, content) in members(second).items()
    }
    assert {one.mtime_epoch for one, _ in members(second).values()} == {EPOCH + 1}


@pytest.fixture(scope="module")
def program() -> Iterator[list[str]]:
    """A copy of the code that every user can read, and the path to give to an interpreter: libarchive-c comes along."""
    with tempfile.TemporaryDirectory(prefix="shiplap-archive-") as folder:
        place = Path(folder)
        place.chmod(0o755)
        shutil.copytree(ROOT / "core", place / "shiplap" / "core", ignore=shutil.ignore_patterns("__pycache__"))
        for path in (Path(archiveimages.__file__), Path(layertar.__file__)):
            shutil.copy(path, place)
        shutil.copytree(Path(libarchive_c.__file__).parent, place / "libarchive", ignore=shutil.ignore_patterns("__pycache__"))
        yield [folder, str(place / "archiveimages.py")]


def run_program(program: list[str], python: str = sys.executable, **options: Any) -> tuple[str, str]:
    """(sha256 of standard output, what it said of itself)."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": program[0], "PYTHONDONTWRITEBYTECODE": "1", **options.pop("env", {})}
    done = subprocess.run([python, program[1]], env=environment, capture_output=True, timeout=60, check=False, **options)
    assert done.returncode == 0, done.stderr.decode()
    return hashlib.sha256(done.stdout).hexdigest(), done.stderr.decode()


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C"},
        {"LC_ALL": "C.UTF-8"},
        {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "1"},
        {"TZ": "America/New_York", "PYTHONHASHSEED": "2", "SOURCE_DATE_EPOCH": "1"},
    ],
    ids=lambda environment: " ".join(f"{key}={value}" for key, value in environment.items()),
)
def test_the_environment_changes_nothing(program: list[str], environment: dict[str, str]) -> None:
    assert run_program(program, env=environment)[0] == GOLDEN


def test_a_locale_that_is_not_utf8_changes_nothing(program: list[str], tmp_path: Path) -> None:
    if shutil.which("localedef") is None:
        pytest.skip("localedef is not installed")
    made = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(tmp_path / "de_DE.ISO-8859-1")], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("this system has no source of the German locale")
    digest, said = run_program(program, env={"LC_ALL": "de_DE.ISO-8859-1", "LOCPATH": str(tmp_path), "PYTHONUTF8": "0"})
    assert "ISO-8859-1" in said, "the locale was not in effect"
    assert digest == GOLDEN


def test_umask_and_working_directory_change_nothing(program: list[str]) -> None:
    assert run_program(program, umask=0o777, cwd="/")[0] == GOLDEN
    assert run_program(program, umask=0, cwd=ROOT)[0] == GOLDEN


def test_the_user_changes_nothing(program: list[str]) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    try:
        assert run_program(program, user=65534, group=65534, extra_groups=[])[0] == GOLDEN
    except PermissionError:
        pytest.skip("nobody cannot run this interpreter")


def test_a_file_and_a_pipe_get_equal_bytes(program: list[str], tmp_path: Path) -> None:
    with (tmp_path / "images.tar").open("wb") as file:
        subprocess.run(
            [sys.executable, program[1]],
            env={"PYTHONPATH": program[0], "PATH": os.environ["PATH"]},
            stdout=file,
            check=True,
            stderr=subprocess.PIPE,
        )
    assert hashlib.sha256((tmp_path / "images.tar").read_bytes()).hexdigest() == GOLDEN


def test_every_python_and_libarchive_that_is_named_writes_equal_bytes(program: list[str]) -> None:
    """``SHIPLAP_PYTHONS`` and ``SHIPLAP_LIBARCHIVES``: interpreters and libarchive.so files, colon-separated."""
    pythons = [sys.executable, *filter(None, os.environ.get("SHIPLAP_PYTHONS", "").split(":"))]
    libraries = ["", *filter(None, os.environ.get("SHIPLAP_LIBARCHIVES", "").split(":"))]
    digests = {}
    for python in pythons:
        digests[python, ""] = run_program(program, python)[0]
    for library in libraries:
        digests[sys.executable, library] = run_program(program, env={"LIBARCHIVE": library} if library else {})[0]
    assert digests == dict.fromkeys(digests, GOLDEN)


# --- any images in, the same images out ---

_layers = st.lists(st.binary(max_size=3000), max_size=4, unique=True).map(
    lambda contents: [layertar.build([{"name": f"f{index}", "data": data}]) for index, data in enumerate(contents)]
)
_tag = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)


@settings(max_examples=40, deadline=None)
@given(
    pool=_layers, data=st.data(), count=st.integers(1, 3), tags=st.lists(_tag, unique=True, max_size=6), epoch=st.integers(0, (8 << 30) - 1)
)
def test_any_images_come_out_as_they_went_in(pool: list[bytes], data: st.DataObject, count: int, tags: list[str], epoch: int) -> None:
    tars = [data.draw(st.lists(st.sampled_from(pool), max_size=6) if pool else st.just([])) for _ in range(count)]
    images = [
        ArchiveImage(image(one, author=str(index)), tuple(f"example.org/app:{tag}" for tag in tags[index::count]))
        for index, one in enumerate(tars)
    ]
    raw, _ = written(images, epoch=epoch)
    found = members(raw)
    listed = {item["Config"]: item for item in json.loads(found["manifest.json"][1])}
    assert len(listed) == count
    for one, layers in zip(images, tars, strict=True):
        item = listed[blob(one.image.config_digest)]
        assert found[item["Config"]][1] == one.image.config
        assert [found[path][1] for path in item["Layers"]] == layers
        assert set(item["RepoTags"] or ()) == set(one.references)
    assert len(found) == count + len({tar for one in tars for tar in one}) + 1
    assert {header.mtime_epoch for header, _ in found.values()} == {epoch}


# --- members that ustar has no room for ---


class _Zeros:
    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes

    def chunks(self) -> Iterator[bytes]:
        piece = bytes(CHUNK_BYTES)
        for _ in range(self.size_bytes // CHUNK_BYTES):
            yield piece
        yield piece[: self.size_bytes % CHUNK_BYTES]


def sparse(file: BinaryIO) -> Callable[[bytes], object]:
    """Writes that leave holes for zeros: gigabytes in no time and on no disk."""
    zeros = bytes(CHUNK_BYTES)
    return lambda piece: file.seek(len(piece), os.SEEK_CUR) if piece == zeros[: len(piece)] else file.write(piece)


def test_members_from_8_gib_get_a_pax_size_and_their_neighbours_stay_plain(tmp_path: Path) -> None:
    sizes = {"before": 5, "below": (8 << 30) - 1, "huge": 8 << 30, "odd": (8 << 30) + 513, "after": 7}
    path = tmp_path / "big.tar"
    with path.open("wb") as file:
        write = sparse(file)
        with ustar(write) as tar:
            for name, size_bytes in sizes.items():
                archive._add(tar, write, name, _Zeros(size_bytes), EPOCH)
        file.truncate()
    with path.open("rb") as file:
        found = list(read_headers(Window(FileSlice(file.fileno(), 0, path.stat().st_size))))
    assert {one.name.decode(): one.data_bytes for one in found} == sizes
    assert [one.data_offset - one.start for one in found] == [512, 512, 1536, 1536, 512]
    assert {(one.mode, one.uid, one.gid, one.mtime_epoch) for one in found} == {(0o644, 0, 0, EPOCH)}
    # End of archive: two zero blocks behind the padding of the last member.
    assert path.stat().st_size == found[-1].data_offset + 512 + 1024
    for program in ("tar", "bsdtar"):
        if shutil.which(program):
            listed = subprocess.run([program, "--numeric-owner", "-tvf", path], capture_output=True, check=True).stdout.decode()
            assert all(str(size_bytes) in line for line, size_bytes in zip(listed.splitlines(), sizes.values(), strict=True))


# --- what is refused, and what fails ---


def test_a_layer_that_is_not_what_the_config_says_is_refused_before_its_first_byte() -> None:
    wrong = image([BASE, MIDDLE], blobs=[MemoryBlob(BASE), MemoryBlob(TOP)])
    output = io.BytesIO()
    with pytest.raises(DiffIDMismatch, match="layer 1"):
        write_images_tar([ArchiveImage(wrong, ("app:1",))], output.write, epoch=0, limits=Limits())
    assert TOP not in output.getvalue()
    assert b"manifest.json" not in output.getvalue()
    assert not output.getvalue().endswith(bytes(1024)), "an archive that is cut off must not look complete"


@pytest.mark.parametrize("local", [True, False])
def test_a_layer_over_the_limit_is_refused(local: bool) -> None:
    big = image([BASE], blobs=[in_file(BASE) if local else MemoryBlob(BASE)])
    with pytest.raises(Refused, match="limit"):
        written([ArchiveImage(big, ("app:1",))], limits=Limits(layer_bytes=len(BASE) - 1))


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ([], {}, "no image"),
        (fixed_images(), {"epoch": -1}, "epoch -1"),
        (fixed_images(), {"epoch": 8 << 30}, "epoch 8589934592"),
        (fixed_images(), {"compression": "bzip2"}, "'bzip2' is not one of none, gzip, zstd, xz"),
        (fixed_images(), {"compression": "lz4"}, "'lz4' is not one of"),
        (fixed_images(), {"compression": "zstd", "level": 23}, "zstd has levels 1 to 22, not 23"),
        (fixed_images(), {"level": 1}, "none has no levels"),
        ([ArchiveImage(APP, ("app:1",)), ArchiveImage(TOOL, ("docker.io/library/app:1",))], {}, "docker.io/library/app:1 names two images"),
    ],
    ids=["no image", "epoch too small", "epoch too large", "bzip2", "lz4", "level", "level of none", "one name for two"],
)
def test_what_no_archive_can_carry_is_refused_before_the_first_byte(
    images: list[ArchiveImage], options: dict[str, Any], message: str
) -> None:
    output = io.BytesIO()
    with pytest.raises(ArchiveRefused, match=message):
        write_images_tar(images, output.write, **{"epoch": EPOCH, "limits": Limits(), **options})
    assert output.getvalue() == b""


def test_a_reference_that_is_none_is_refused() -> None:
    with pytest.raises(ReferenceInvalid):
        written([ArchiveImage(APP, ("Not A Reference",))])


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd", "xz"])
def test_a_full_disk_is_one_clear_error(compression: str) -> None:
    with (
        open("/dev/full", "wb", buffering=0) as full,
        pytest.raises(OutsideFailure, match=rf"cannot write {archive_name(compression)}: No space left on device"),
    ):
        write_images_tar(fixed_images(), full.write, epoch=0, limits=Limits(), compression=compression)


def test_a_source_that_fails_is_not_blamed_on_the_output() -> None:
    class Failing(MemoryBlob):
        def chunks(self) -> Iterator[bytes]:
            raise Refused("blob b1 of app.tar is cut off")

    broken = replace(APP, layers=(Layer(0, APP.diff_ids[0], Failing(BASE)), *APP.layers[1:]))
    with pytest.raises(Refused, match="cut off"):
        written([ArchiveImage(broken, ())])


def test_reading_never_holds_more_than_a_piece_of_a_layer(tmp_path: Path) -> None:
    tar = layertar.build([{"name": "zeros", "data": bytes(48 << 20)}])
    assert_peak_below(image([tar], blobs=[in_file(tar)]), 8 << 20)


def assert_peak_below(one: Image, limit_bytes: int) -> None:
    import tracemalloc

    tracemalloc.start()
    try:
        with open(os.devnull, "wb") as sink:
            write_images_tar([ArchiveImage(one, ("app:1",))], sink.write, epoch=0, limits=Limits())
        assert tracemalloc.get_traced_memory()[1] < limit_bytes
    finally:
        tracemalloc.stop()
