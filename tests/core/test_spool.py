"""A layer's uncompressed tar: read in place or spooled, verified before anyone sees it, with clear errors for everything else."""

from __future__ import annotations

import gzip
import hashlib
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from archives import compress
from commandline import environment
from layertar import build, diff_id, item
from shiplap.core.compression import StreamCorrupt, TooLarge
from shiplap.core.entries import FileSlice
from shiplap.core.errors import OutsideFailure, Refused
from shiplap.core.image import Image, Layer
from shiplap.core.layer.spool import DiffIDMismatch, uncompressed_layer
from shiplap.core.limits import Limits
from shiplap.core.platform import Platform
from smalldisk import with_small_disk

TAR = build([item("f", data=b"content" * 1000)])
CHANGED = "layer 3 .*: the file was changed while it was being read"


class BlobWrong(Refused):
    pass


@dataclass(frozen=True)
class Stored:
    """A blob as sources have it: its bytes, perhaps in a file."""

    data: bytes
    file: FileSlice | None = None
    digest: str | None = None
    location: str = "blob in app.tar"
    media_type: str | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    def chunks(self) -> Iterator[bytes]:
        yield from (self.data[at : at + 5000] for at in range(0, len(self.data), 5000))
        if self.digest not in (None, "sha256:" + hashlib.sha256(self.data).hexdigest()):
            raise BlobWrong(f"{self.location} is not {self.digest}")

    def slice(self) -> FileSlice | None:
        return self.file


def image(blob: Stored, wanted: str = diff_id(TAR)) -> tuple[Image, Layer]:
    layer = Layer(3, wanted, blob)
    return Image(
        b"", "sha256:" + "0" * 64, (layer,), ("docker.io/library/app:1",), Platform("linux", "amd64"), "docker-archive:app.tar"
    ), layer


def read(blob: Stored, wanted: str = diff_id(TAR), limits: Limits | None = None, progress: list[int] | None = None) -> bytes:
    advance = (lambda amount: None) if progress is None else progress.append
    with uncompressed_layer(*image(blob, wanted), limits or Limits(), advance) as tar:
        return b"".join(tar.chunks())


def in_file(path: Path, data: bytes, offset: int = 0) -> Stored:
    path.write_bytes(b"?" * offset + data)
    return Stored(data, FileSlice(os.open(path, os.O_RDONLY), offset, len(data)))


@pytest.mark.parametrize("how", ["none", "gzip", "bzip2", "xz", "zstd"])
def test_a_layer_is_the_same_however_it_is_stored(how: str) -> None:
    seen: list[int] = []
    assert read(Stored(compress(TAR, how)), progress=seen) == TAR
    assert sum(seen) == len(TAR)


def test_an_uncompressed_layer_in_a_file_is_read_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", None)  # nothing is spooled
    blob = in_file(tmp_path / "a", TAR, offset=700)
    with uncompressed_layer(*image(blob), Limits()) as tar:
        assert tar is blob.file
        assert b"".join(tar.chunks()) == TAR


def test_a_compressed_layer_in_a_file_is_spooled(tmp_path: Path) -> None:
    assert read(in_file(tmp_path / "a", gzip.compress(TAR))) == TAR


def test_an_empty_layer_is_empty(tmp_path: Path) -> None:
    assert read(in_file(tmp_path / "a", b""), diff_id(b"")) == b"" == read(Stored(gzip.compress(b"")), diff_id(b""))


@pytest.mark.parametrize("how", ["none", "gzip"])
def test_another_content_than_the_config_names_is_refused(how: str, tmp_path: Path) -> None:
    for blob in (Stored(compress(TAR + b"\0", how)), in_file(tmp_path / how, compress(TAR + b"\0", how))):
        with pytest.raises(DiffIDMismatch) as caught:
            read(blob)
        assert "docker.io/library/app:1, layer 3 (blob in app.tar)" in caught.value.message
        assert diff_id(TAR) in caught.value.message and diff_id(TAR + b"\0") in caught.value.message
        assert caught.value.hint


def test_a_wrong_blob_digest_is_said_by_the_blob(tmp_path: Path) -> None:
    stored = in_file(tmp_path / "a", TAR)
    for blob in (Stored(gzip.compress(TAR), digest="sha256:" + "1" * 64), Stored(TAR, stored.file, "sha256:" + "1" * 64)):
        with pytest.raises(BlobWrong):
            read(blob)


@pytest.mark.parametrize("how", ["gzip", "bzip2", "xz", "zstd"])
def test_a_stream_that_is_cut_off_is_refused(how: str) -> None:
    with pytest.raises(StreamCorrupt, match="app:1, layer 3"):
        read(Stored(compress(TAR, how)[:-5]))


def test_the_limit_holds_for_every_way(tmp_path: Path) -> None:
    limits = Limits(layer_bytes=len(TAR))
    assert read(Stored(gzip.compress(TAR)), limits=limits) == read(in_file(tmp_path / "a", TAR), limits=limits) == TAR
    limits = Limits(layer_bytes=len(TAR) - 1)
    with pytest.raises(TooLarge):
        read(Stored(gzip.compress(TAR)), limits=limits)
    with pytest.raises(Refused, match=f"{len(TAR)} bytes are over the limit of {len(TAR) - 1}"):
        read(in_file(tmp_path / "b", TAR), limits=limits)


def test_a_bomb_is_stopped_at_the_limit() -> None:
    bomb = gzip.compress(bytes(50 << 20))
    seen: list[int] = []
    with pytest.raises(TooLarge):
        read(Stored(bomb), limits=Limits(layer_bytes=1 << 20), progress=seen)
    assert sum(seen) <= 2 << 20


def test_a_file_that_changes_while_it_is_read_is_said_to_have_changed(tmp_path: Path) -> None:
    blob = in_file(tmp_path / "a", TAR)
    with pytest.raises(OutsideFailure, match=CHANGED), uncompressed_layer(*image(blob), Limits()):
        (tmp_path / "a").write_bytes(TAR)  # the same bytes, but nobody knows when each was read


@pytest.mark.parametrize("failure", [None, Refused("something follows from it")])
def test_a_file_that_shrinks_while_it_is_read_is_said_to_have_changed(tmp_path: Path, failure: Exception | None) -> None:
    blob = in_file(tmp_path / "a", TAR)
    with pytest.raises(OutsideFailure, match=CHANGED), uncompressed_layer(*image(blob), Limits()) as tar:
        os.truncate(tmp_path / "a", 700)
        if failure is not None:
            raise failure
        b"".join(tar.chunks())


def test_a_file_that_is_shorter_than_its_slice_from_the_start_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(TAR)
    blob = Stored(TAR, FileSlice(os.open(tmp_path / "a", os.O_RDONLY), 0, len(TAR) + 5))
    with pytest.raises(EOFError):
        read(blob)


def test_what_fails_while_a_layer_is_open_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(BlobWrong, match="mine"), uncompressed_layer(*image(in_file(tmp_path / "a", TAR)), Limits()):
        raise BlobWrong("mine")


def test_nothing_stays_in_tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with uncompressed_layer(*image(Stored(gzip.compress(TAR))), Limits()):
        assert list(tmp_path.iterdir()) == []


SPOOL = """
import sys
from functools import partial
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_spool
from shiplap.core.errors import OutsideFailure
try:
    test_spool.read(test_spool.Stored(Path(sys.argv[2]).read_bytes()), sys.argv[3])
except OutsideFailure as error:
    print(error.message, "|", error.hint)
    sys.exit(1)
"""


def elsewhere(tmp_path: Path) -> tuple[list[str], dict[str, str]]:
    """Command and environment of another process that spools a layer of 8 MiB."""
    data = build([item("f", data=os.urandom(8 << 20))])
    (tmp_path / "blob").write_bytes(gzip.compress(data, 1))
    tests = Path(__file__).parent
    command = [sys.executable, "-c", SPOOL, str(tests), str(tmp_path / "blob"), diff_id(data)]
    return command, environment({"TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": f"{environment()['PYTHONPATH']}:{tests.parent}"})


def test_a_spool_that_cannot_be_written_is_one_clear_error_about_tmpdir(tmp_path: Path) -> None:
    command, env = elsewhere(tmp_path)
    (tmp_path / "tmp").mkdir()
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, preexec_fn=limit)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == (
        f"docker.io/library/app:1, layer 3 (blob in app.tar): cannot spool to {tmp_path}/tmp: File too large"
        " | set TMPDIR to a folder with more room\n"
    )


def test_a_tmpdir_without_room_is_found_before_it_is_full(tmp_path: Path) -> None:
    command, env = elsewhere(tmp_path)
    done = with_small_disk(tmp_path / "tmp", "20m", command, env)
    assert (done.returncode, done.stderr) == (1, "")
    assert f"no room to spool its tar: 20 MiB are free in {tmp_path}/tmp | set TMPDIR" in done.stdout


FLUSHED = """
from shiplap.core.errors import OutsideFailure
from shiplap.core.layer.spool import cannot_spool, spool_file
try:
    with spool_file("layer") as spool:
        try:
            spool.write(b"x" * 100)
            spool.flush()
        except OSError as error:
            raise cannot_spool("layer", error) from error
except OutsideFailure as error:
    print(error.message)
"""


def test_what_is_still_buffered_when_the_disk_is_full_hides_no_error() -> None:
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (10, 10))
    done = subprocess.run([sys.executable, "-c", FLUSHED], env=environment(), capture_output=True, text=True, preexec_fn=limit)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("layer: cannot spool to ") and done.stdout.endswith(": File too large\n")
