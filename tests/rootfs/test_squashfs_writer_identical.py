"""The bytes do not depend on who writes them, where, with what Python or how many threads: golden digests and variation."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import squashfswriting
from commandline import nobody_can_run_it
from shiplap.rootfs.squashfs.compress import compressor
from shiplap.rootfs.squashfs.write import WRITER_NUMBER, Layout
from squashfsimages import expected_facts, facts_of_image, torture_tree
from squashfswriting import golden_tree, write_image

# Of squashfswriting.golden_tree, by writer number, compression and block size. Never edited: other bytes need another number.
GOLDEN = {
    (1, "none", 4096): "9747d64ebc939736536031b7cc8f02aed877e521d28f3abd627908ab5b641a71",
    (1, "none", 131072): "e5685c33c858b82bd38faa510f2ec0dc882e4883dfa06531df0ef7878f7a8ef5",
    (1, "libzstd 1.5.4", 4096): "5f84970255a1acbcb83caf4d591fe4808a0ef030f1af3513e40fe602b4ed60cf",
    (1, "libzstd 1.5.4", 131072): "3599597d2093afe1cf1434bdb44017222725ca9e4595240d8ad88cd5ce235c24",
    (1, "libzstd 1.5.7", 4096): "c26c4b8e13687a946257365de32a1c54c79f5059046e80af0c534dba31c72c8d",
    (1, "libzstd 1.5.7", 131072): "50520a08266e787b5ca8dd36db9bb9bff0f85c13e1d7f14bde1d9020f375c456",
}
# liblzma 5.4 to 5.8, zlib 1.2.13 to 1.3.2 and liblz4 1.9.4 to 1.10 gave the same blocks: one digest each, for those seen.
for version in ("5.4.1", "5.8.1", "5.8.4"):
    GOLDEN[1, f"liblzma {version}", 4096] = "473703db77acff0b39e88d399cfa69a17cbf7478f88a5ee89f2f81a219c3fc44"
    GOLDEN[1, f"liblzma {version}", 131072] = "8de2e674c10b23e8182b0740ccf500340e58ded92d1cbb155cc93ee261ff90bb"
for version in ("1.2.13", "1.3.1", "1.3.2"):
    GOLDEN[1, f"zlib {version}", 4096] = "de5b1af05b96eaf83ba9f20f5573f3d852fe6b6794ee8d21eb66a64210505d9a"
    GOLDEN[1, f"zlib {version}", 131072] = "094fe3eed7d279e6caf3459e7601cdb91b6e3d14d7b39e2bb5a93d34c1637c86"
for version in ("1.9.4", "1.10.0"):
    GOLDEN[1, f"liblz4 {version}", 4096] = "8188d862218691cac52525e27493ca35792e5ec24cfa2255f49b46eebcce22d4"
    GOLDEN[1, f"liblz4 {version}", 131072] = "d320ee5baf695b5db3920d54515988346d0ed32198c5f3256d4f729b7db8ac7c"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # Not below pytest's own folder, which other users cannot enter.
    with tempfile.TemporaryDirectory(prefix="shiplap-writer-") as name:
        os.chmod(name, 0o777)
        yield Path(name)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("block_size_bytes", [4096, 131072])
@pytest.mark.parametrize("compression", ["none", "zstd", "xz", "gzip", "lz4"])
def test_the_golden_tree_has_its_digest(compression: str, block_size_bytes: int, tmp_path: Path) -> None:
    library = compressor(compression, None, block_size_bytes).library
    expected = GOLDEN.get((WRITER_NUMBER, library, block_size_bytes))
    if expected is None and compression != "none":
        pytest.skip(f"no digest is known for {library}")
    layout = Layout(block_size_bytes, 1_700_000_000, exportable=True)
    write_image(tmp_path / "image", golden_tree(), compression, None, layout)
    assert digest(tmp_path / "image") == expected


def test_the_golden_tree_is_what_it_is(tmp_path: Path) -> None:
    write_image(tmp_path / "image", golden_tree())
    # Links across directories: a walk meets another name first only if it sorts before.
    assert facts_of_image(tmp_path / "image") == expected_facts(golden_tree())


@pytest.mark.parametrize("compression", ["zstd", "xz", "gzip", "lz4", "none"])
def test_the_bytes_do_not_depend_on_the_number_of_threads(compression: str, tmp_path: Path) -> None:
    entries = torture_tree(16384)
    for jobs in (1, 2, 5, 16):
        level = 7 if compression == "zstd" else None
        write_image(tmp_path / f"{jobs}", entries, compression, level, Layout(16384), jobs)
    assert len({digest(tmp_path / f"{jobs}") for jobs in (1, 2, 5, 16)}) == 1


def test_threads_that_end_in_any_order_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import random
    import time

    from shiplap.rootfs.squashfs.write.blocks import BlockWriter

    write_image(tmp_path / "one", torture_tree(4096), "zstd", 1)
    compress_, rng = BlockWriter._compress, random.Random(3)

    def slowly(self, *arguments):  # type: ignore[no-untyped-def]
        time.sleep(rng.random() / 200)
        return compress_(self, *arguments)

    monkeypatch.setattr(BlockWriter, "_compress", slowly)
    write_image(tmp_path / "two", torture_tree(4096), "zstd", 1, jobs=7)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")


VARIATIONS: dict[str, dict[str, object]] = {
    "another hash seed": {"env": {"PYTHONHASHSEED": "4711"}},
    "another locale and time zone": {"env": {"LC_ALL": "C", "LANG": "tr_TR.UTF-8", "TZ": "Asia/Kathmandu"}},
    "an epoch": {"env": {"SOURCE_DATE_EPOCH": "1"}},
    "another umask": {"umask": 0o077},
    "another folder": {"cwd": "/"},
    "optimised": {"env": {"PYTHONOPTIMIZE": "2"}},
}


def source_root() -> str:
    """Where Python finds shiplap and the test's own modules."""
    import shiplap.core.entries

    # The namespace's folder, not what its links point to.
    packages = next(path for path in sys.path if Path(path, "shiplap", "core", "entries.py").exists())
    assert shiplap.core.entries.CHUNK_BYTES
    return os.pathsep.join((str(Path(packages).absolute()), str(Path(squashfswriting.__file__).parent)))


def by_program(
    python: str, image: Path, *prefix: str, form: str = "zstd 3", jobs: int = 2, env: dict[str, str] | None = None, **options: object
) -> tuple[str, str]:
    """Digest and library of the golden tree, written by another process. ``form``: compression and level."""
    argv = [*prefix, python, "-W", "error", squashfswriting.__file__, *form.split(), "8192", str(jobs), str(image)]
    environment = {"PYTHONPATH": source_root(), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"], **(env or {})}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment, **options)  # type: ignore[call-overload]
    assert (done.returncode, done.stderr) == (0, "")
    found, _, library = done.stdout.strip().partition(" ")
    assert found == digest(image)
    return found, library


@pytest.fixture(scope="module")
def expected(folder: Path) -> tuple[str, str]:
    return by_program(sys.executable, folder / "expected")


@pytest.mark.parametrize("variation", VARIATIONS)
def test_the_bytes_do_not_depend_on_the_surroundings(folder: Path, expected: tuple[str, str], variation: str) -> None:
    assert by_program(sys.executable, folder / "image", **VARIATIONS[variation]) == expected  # type: ignore[arg-type]


def test_nobody_writes_the_same_bytes(folder: Path, expected: tuple[str, str]) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become nobody")
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--bounding-set=-all")
    if not nobody_can_run_it():
        pytest.skip("nobody cannot reach this checkout and its Python")
    assert by_program(sys.executable, folder / "nobody", *nobody) == expected


def test_one_processor_writes_the_same_bytes(folder: Path, expected: tuple[str, str]) -> None:
    if shutil.which("taskset") is None:
        pytest.skip("taskset is not installed")
    assert by_program(sys.executable, folder / "one", "taskset", "-c", str(min(os.sched_getaffinity(0))), jobs=0) == expected


@pytest.mark.parametrize("minor", [11, 12, 13, 14])
def test_every_python_here_writes_the_same_bytes(folder: Path, minor: int) -> None:
    """With equal libraries. SHIPLAP_PYTHONS names further Pythons (separated by colons) beside those of PATH and pyenv."""
    found = next((python for python in pythons() if version(python) == (3, minor)), None)
    if found is None:
        pytest.skip(f"no Python 3.{minor} here; name one in SHIPLAP_PYTHONS")
    compared = []
    for form in ("none -", "zstd 3", "xz -", "gzip 6", "lz4 -"):
        ours = by_program(sys.executable, folder / f"ours {minor} {form}", form=form)
        theirs = by_program(found, folder / f"theirs {minor} {form}", form=form)
        if ours[1] == theirs[1]:
            assert ours == theirs, form
            compared.append(form)
        else:
            # Another version says so in the record; the committed digests of both hold elsewhere.
            assert ours[1].split()[0] == theirs[1].split()[0], form
    assert "none -" in compared


def pythons() -> list[str]:
    named = [name for name in os.environ.get("SHIPLAP_PYTHONS", "").split(os.pathsep) if name]
    installed = [shutil.which(f"python3.{minor}") for minor in (11, 12, 13, 14)]
    pyenv = map(str, Path.home().glob(".pyenv/versions/3.*/bin/python"))
    return [python for python in (*named, *installed, *pyenv) if python and "/shims/" not in python]


def version(python: str) -> tuple[int, ...]:
    code = "import sys; print(*sys.version_info[:2])"
    return tuple(map(int, subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()))
