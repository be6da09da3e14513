"""EROFS by the real mkfs.erofs: what goes in comes out, in the same bytes, and what the tool cannot do is told."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from erofsimages import use_new_erofs_utils, use_program
from requirement import require
from shiplap.core.entries import Entry, Kind
from shiplap.core.errors import OutsideFailure, ProgramMissing
from shiplap.core.imageform import EROFS_LEVELS
from shiplap.core.run import find
from shiplap.rootfs.erofs import is_erofs, read_superblock
from shiplap.rootfs.sinks.erofs import ErofsOptions, ErofsOptionsError, UnfitMkfsErofs, describe_erofs, open_erofs
from smalldisk import with_small_disk
from squashfsimages import expected_facts, facts_of_the_kernel, small_tree, tar_of, torture_tree
from squashfswriting import ROOT, file, golden_tree

UUID = "00112233-4455-6677-8899-aabbccddeeff"
OPTIONS = ErofsOptions(UUID, epoch=1_700_000_000)
# Of squashfswriting.golden_tree, by these versions of mkfs.erofs with liblz4 1.9.4 or 1.10. Never edited: others get lines of their own.
GOLDEN_VERSIONS = ("1.8.6", "1.9.4")
GOLDEN = {
    "none": "9015726c35c7f201762aa52a0cd962dd402961bab03ddad04274d97ee3c9a4ed",
    "lz4": "27014f36bfb40e4d15564f1015338276a660a97b249140a84506e502e9aea434",
    "lz4hc": "692b2b467a3f93cc7acc27c6e13ca257bab711e98dd42e313b959f996751a648",
}


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> None:
    use_new_erofs_utils(monkeypatch)


def write(output: Path, entries: list[Entry], options: ErofsOptions = OPTIONS) -> Path:
    with open_erofs(options, output) as add:
        for entry in entries:
            add(entry)
    return output


@pytest.mark.usefixtures("tool")
@pytest.mark.parametrize("compression", EROFS_LEVELS)
def test_the_kernel_sees_what_went_in(compression: str, tmp_path: Path) -> None:
    entries = torture_tree(4096)
    image = write(tmp_path / "image", entries, replace(OPTIONS, compression=compression))
    if "erofs" not in Path("/proc/filesystems").read_text():
        pytest.skip("this kernel has no EROFS")
    assert facts_of_the_kernel(image, tmp_path, "erofs") == expected_facts(entries)


@pytest.mark.usefixtures("tool")
def test_the_superblock_is_what_was_asked_for(tmp_path: Path) -> None:
    image = write(tmp_path / "image", small_tree())
    assert is_erofs(image)
    superblock = read_superblock(image)
    assert (superblock.block_size_bytes, superblock.build_epoch, superblock.uuid) == (4096, 1_700_000_000, UUID)
    assert superblock.inode_count == sum(entry.kind is not Kind.HARDLINK for entry in small_tree())
    assert superblock.used_bytes == image.stat().st_size


@pytest.mark.usefixtures("tool")
def test_the_bytes_depend_on_nothing_but_stream_and_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = torture_tree(4096)
    plain = write(tmp_path / "plain", entries).read_bytes()
    for jobs in (1, 2, 5):
        assert write(tmp_path / f"{jobs} jobs", entries, replace(OPTIONS, jobs=jobs)).read_bytes() == plain
    for name, value in {"TZ": "Asia/Tokyo", "LC_ALL": "tr_TR.UTF-8", "SOURCE_DATE_EPOCH": "12345"}.items():
        monkeypatch.setenv(name, value)
    before = os.umask(0o077)
    try:
        assert write(tmp_path / "elsewhere", entries).read_bytes() == plain
    finally:
        os.umask(before)
    assert write(tmp_path / "another epoch", entries, replace(OPTIONS, epoch=5)).read_bytes() != plain
    assert write(tmp_path / "another compression", entries, replace(OPTIONS, compression="none")).read_bytes() != plain


@pytest.mark.usefixtures("tool")
@pytest.mark.parametrize("compression", GOLDEN)
def test_the_golden_tree_has_its_digest(compression: str, tmp_path: Path) -> None:
    options = replace(OPTIONS, compression=compression)
    version = describe_erofs(options)["version"]
    if version not in GOLDEN_VERSIONS:
        pytest.skip(f"no digest is known for mkfs.erofs {version}")
    assert hashlib.sha256(write(tmp_path / "image", golden_tree(), options).read_bytes()).hexdigest() == GOLDEN[compression]


@pytest.mark.usefixtures("tool")
def test_level_and_cluster_decide_the_bytes(tmp_path: Path) -> None:
    text = b"".join(b"%d bottles, %d crates\n" % (number % 977, number % 31) for number in range(20_000))
    forms = [
        replace(OPTIONS, compression="zstd", level=1),
        replace(OPTIONS, compression="zstd", level=19),
        replace(OPTIONS, compression="zstd", level=19, cluster_bytes=4096),
    ]
    images = [write(tmp_path / str(number), [ROOT, file(b"text", text)], form).read_bytes() for number, form in enumerate(forms)]
    assert len(set(images)) == 3


@pytest.mark.usefixtures("tool")
def test_nobody_writes_the_same_bytes(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become nobody")
    expected = write(tmp_path / "root", small_tree()).read_bytes()
    folder = tmp_path / "open"
    folder.mkdir()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.chown(folder, 65534, 65534)
            os.chdir(folder)
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            write(Path("/proc/self/cwd/nobody"), small_tree())
            code = 0
        except BaseException as error:
            print(repr(error), file=sys.stderr)
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (folder / "nobody").read_bytes() == expected


@pytest.mark.usefixtures("tool")
def test_the_tool_is_described_for_the_record() -> None:
    found = describe_erofs(OPTIONS)
    assert (found["tool"], found["compression"], found["level"], found["cluster-size"]) == ("mkfs.erofs", "lz4hc", "12", "65536")
    assert found["version"][:2] in ("1.", "2.")
    assert found.get("library", "liblz4.so.1").startswith("liblz4.so.1")
    assert {"level", "cluster-size"}.isdisjoint(describe_erofs(replace(OPTIONS, compression="none")))


def test_an_mkfs_that_reads_no_tar_is_refused_with_what_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("erofs")
    said = subprocess.run([find("mkfs.erofs", package=""), "--help"], capture_output=True, check=False)
    if b"--tar" in said.stdout + said.stderr:
        use_program("mkfs.erofs", 'echo "mkfs.erofs 1.5" >&2; exit 1', tmp_path / "bin", monkeypatch)
    with pytest.raises(UnfitMkfsErofs, match=r"mkfs.erofs 1\.\d+ is too old: it cannot read a tar") as caught:
        write(tmp_path / "image", small_tree())
    assert "erofs-utils 1.8 or newer" in (caught.value.hint or "")
    assert not (tmp_path / "image").exists()


@pytest.mark.parametrize("lacking", ["--sort", "--mkfs-time", "--workers"])
def test_an_mkfs_that_lacks_an_option_is_refused_by_its_name(lacking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = "--tar= --sort= --mkfs-time --workers=".replace(lacking, "--other")
    use_program("mkfs.erofs", f'echo "mkfs.erofs (erofs-utils) 1.7 {options}"', tmp_path / "bin", monkeypatch)
    with pytest.raises(UnfitMkfsErofs, match=f"mkfs.erofs 1.7 is too old: it lacks {lacking}$"):
        write(tmp_path / "image", small_tree())


def test_a_missing_mkfs_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(ProgramMissing, match=r"mkfs\.erofs is not installed") as caught:
        write(tmp_path / "image", small_tree())
    assert "erofs-utils 1.8 or newer" in (caught.value.hint or "")


def test_a_build_of_the_tool_without_the_compression_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = 'echo "mkfs.erofs (erofs-utils) 1.8"; echo "available compressors: lz4"'
    script = f'case $1 in --help) echo "--tar= --sort= --mkfs-time --workers=";; *) {version};; esac'
    use_program("mkfs.erofs", script, tmp_path / "bin", monkeypatch)
    with pytest.raises(UnfitMkfsErofs, match="was built without zstd; it has lz4"):
        write(tmp_path / "image", small_tree(), replace(OPTIONS, compression="zstd"))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"compression": "xz"}, "'xz' is no compression of EROFS"),
        ({"level": 13}, "13 is no level of lz4hc, which has 1 to 12"),
        ({"compression": "lz4", "level": 1}, "lz4 has no level in EROFS"),
        ({"cluster_bytes": 5000}, "no power of two"),
        ({"cluster_bytes": 2048}, "no power of two"),
        ({"epoch": 1 << 32}, "does not fit into 32 bits"),
        ({"jobs": 0}, "0 jobs cannot work"),
    ],
)
def test_options_that_no_erofs_has_are_refused(changes: dict[str, object], match: str, tmp_path: Path) -> None:
    with pytest.raises(ErofsOptionsError, match=match):
        write(tmp_path / "image", small_tree(), replace(OPTIONS, **changes))  # type: ignore[arg-type]


@pytest.mark.usefixtures("tool")
def test_when_the_body_fails_nothing_is_left_and_what_exists_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="own"), open_erofs(OPTIONS, tmp_path / "image") as add:
        add(small_tree()[0])
        raise ValueError("the body's own")
    assert not (tmp_path / "image").exists()
    (tmp_path / "image").write_bytes(b"precious")
    with pytest.raises(OutsideFailure, match="exists already"):
        write(tmp_path / "image", small_tree())
    assert (tmp_path / "image").read_bytes() == b"precious"


def test_an_image_that_lost_entries_is_caught_although_the_tool_ended_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_new_erofs_utils(monkeypatch)
    real = find("mkfs.erofs", package="")
    fewer = tmp_path / "fewer.tar"
    fewer.write_bytes(tar_of(small_tree()[:-1]))
    # Not a stream that is cut off: 1.8.6 then waits for ever with a processor of its own, 1.9.4 says something and ends with 0.
    script = f'case "$*" in *--tar=f*) {real} "$@" <{fewer}; cat >/dev/null;; *) exec {real} "$@";; esac'
    use_program("mkfs.erofs", script, tmp_path / "bin", monkeypatch)
    with pytest.raises(OutsideFailure, match=r"mkfs.erofs did not follow its options"):
        write(tmp_path / "image", small_tree())
    assert not (tmp_path / "image").exists()


@pytest.mark.parametrize("other", ["-T5", "-U99999999-4455-6677-8899-aabbccddeeff", "-b8192"])
def test_a_tool_that_follows_other_options_is_caught(other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_new_erofs_utils(monkeypatch)
    real = find("mkfs.erofs", package="")
    script = f'case "$*" in *--tar=f*) exec {real} "$@" {other};; *) exec {real} "$@";; esac'
    use_program("mkfs.erofs", script, tmp_path / "bin", monkeypatch)
    with pytest.raises(OutsideFailure, match=r"mkfs.erofs"):
        write(tmp_path / "image", small_tree(), replace(OPTIONS, compression="none"))
    assert not (tmp_path / "image").exists()


@pytest.mark.usefixtures("tool")
def test_progress_counts_every_byte_of_the_stream(tmp_path: Path) -> None:
    counted: list[int] = []
    with open_erofs(OPTIONS, tmp_path / "image", counted.append) as add:
        for entry in small_tree():
            add(entry)
    assert sum(counted) == len(tar_of(small_tree()))


@pytest.mark.usefixtures("tool")
def test_a_full_disk_is_one_clear_failure(tmp_path: Path) -> None:
    program = (
        "import sys, os; from pathlib import Path; from test_erofs_sink import *; from shiplap.core import entries;"
        " write(Path(sys.argv[1], 'image'), [Entry(b'', Kind.DIRECTORY, 0o755),"
        " Entry(b'n', Kind.REGULAR, 0o644, content=entries.Bytes(os.urandom(9 << 20)))])"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]), "PYTHONDONTWRITEBYTECODE": "1"}
    done = with_small_disk(tmp_path / "disk", "4m", [sys.executable, "-c", program, str(tmp_path / "disk")], env)
    assert done.returncode == 1
    assert "OutsideFailure: mkfs.erofs" in done.stderr
