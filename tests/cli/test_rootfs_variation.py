"""The same base and store give the same firmware: whatever the machine, the user, the Python and the base's compression."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commandline import COMMAND, environment, nobody_can_run_it
from firmwares import BASE, store_folder

GOLDEN = {
    "rootfs.roothash": "8da20a1d990392ff6729d258b8c60fa053b07d8b608167bd7f965fe5761e6fe7",
    "rootfs.squashfs": "50076748c1e11daaf639400d3ca8f0c3e46d93d6925fc6bf8b088fea335c9e80",
    "rootfs.verity": "ca51eb4c680e3f52d4b0cde81572f6733680e80fd0497fc27446343cace8b1e9",
}
"""sha256 of a root without compression and without a target kit: no library's version and no script shows in it."""


@pytest.fixture(scope="module")
def shared() -> Iterator[Path]:
    """A folder that every user may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="shiplap-rootfs-variation-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        store_folder(folder / "store", placement="partition")
        store_folder(folder / "plain", kit=False)
        (folder / "base.tar").write_bytes(BASE)
        (folder / "kernel").write_bytes(b"kernel" * 1000)
        (folder / "initrd").write_bytes(b"initrd" * 1001)
        yield folder


@pytest.fixture(scope="module")
def reference(shared: Path) -> dict[str, bytes]:
    return made(shared, shared / "reference")


def made(shared: Path, out: Path, *words: str, base: Path | None = None, **options: Any) -> dict[str, bytes]:
    base = base or shared / "base.tar"
    wanted = ("--placement", "partition", "--compression", "none", "--disk", "--data-size", "2M", "--progress", "quiet",
              "--provision", "--kernel", str(shared / "kernel"), "--initrd", str(shared / "initrd"))  # fmt: skip
    command = [*COMMAND, "rootfs", "--base", str(base), "--store", str(shared / "store"), "-o", str(out), *wanted, *words]
    done = subprocess.run(
        command, env=environment(options.pop("env", None)), capture_output=True, text=True, check=False, timeout=60, **options
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_the_bytes_are_those_of_the_last_release(shared: Path, tmp_path: Path) -> None:
    command = [*COMMAND, "rootfs", "--base", str(shared / "base.tar"), "--store", str(shared / "plain"), "-o", str(tmp_path / "out"),
               "--placement", "partition", "--compression", "none", "--progress", "quiet"]  # fmt: skip
    subprocess.run(command, env=environment(), capture_output=True, check=True, timeout=60)
    assert {name: hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() for name in GOLDEN} == GOLDEN


def _umask(mask: int) -> Callable[[], object]:
    return lambda: os.umask(mask)


def _one_processor() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


VARIATIONS: dict[str, dict[str, Any]] = {
    "umask 077": {"preexec_fn": _umask(0o077)},
    "another time zone": {"env": {"TZ": "Pacific/Kiritimati"}},
    "the C locale": {"env": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}},
    "another hash seed": {"env": {"PYTHONHASHSEED": "1"}},
    "one processor": {"preexec_fn": _one_processor},
    "another folder for temporary files": {"env": {"TMPDIR": "/dev/shm"}},
    "optimised Python": {"env": {"PYTHONOPTIMIZE": "2"}},
}


@pytest.mark.parametrize("variation", VARIATIONS)
def test_the_surroundings_do_not_show(shared: Path, reference: dict[str, bytes], tmp_path: Path, variation: str) -> None:
    assert made(shared, tmp_path / "out", **VARIATIONS[variation]) == reference


def test_jobs_and_the_base_s_compression_do_not_show(shared: Path, reference: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "base.tar").write_bytes(gzip.compress(BASE, mtime=7))
    assert made(shared, tmp_path / "out", "--jobs", "3", base=tmp_path / "base.tar") == reference


def test_the_user_does_not_show(shared: Path, reference: dict[str, bytes]) -> None:
    if not nobody_can_run_it():
        pytest.skip("only root can become somebody else, who must be able to reach this checkout and its Python")
    (shared / "nobody").mkdir(mode=0o700)
    os.chown(shared / "nobody", 65534, 65534)
    found = made(shared, shared / "nobody/out", user=65534, group=65534, extra_groups=[], cwd="/", env={"HOME": "/"})
    assert found == reference
