"""The output folder: artifacts appear whole or not at all, and nothing else is touched."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from pathlib import Path

import pytest
from shiplap.core.errors import OutsideFailure
from shiplap.core.output import ARTIFACTS, STAGE_PREFIX, SUMS_NAME, OutputUnusable, sha256_file, staged_output


def build(out: Path, **artifacts: bytes) -> None:
    """A finished build; ``store_tar=b""`` is the artifact ``store.tar``."""
    files = {name.replace("_", ".", 1): data for name, data in artifacts.items()}
    with staged_output(out) as stage:
        for name, data in files.items():
            stage.write(name, data)
        stage.publish({name: hashlib.sha256(data).hexdigest() for name, data in files.items()})


def content(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def sums(**artifacts: bytes) -> bytes:
    lines = sorted((name.replace("_", ".", 1), hashlib.sha256(data).hexdigest()) for name, data in artifacts.items())
    return "".join(f"{digest}  {name}\n" for name, digest in lines).encode()


def test_a_build_leaves_its_artifacts_and_their_sums(tmp_path: Path) -> None:
    build(tmp_path / "deep/out", store_tar=b"tar", record_json=b"{}")
    assert content(tmp_path / "deep/out") == {
        "store.tar": b"tar",
        "record.json": b"{}",
        SUMS_NAME: sums(store_tar=b"tar", record_json=b"{}"),
    }


def test_artifacts_are_readable_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        build(tmp_path / "out", store_tar=b"tar")
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o7777 for path in (tmp_path / "out").iterdir()} == {"store.tar": 0o644, SUMS_NAME: 0o644}


def test_a_later_build_removes_stale_artifacts_and_nothing_else(tmp_path: Path) -> None:
    build(tmp_path, store_tar=b"old", store_json=b"old", record_json=b"old")
    foreign = {"notes.txt": b"mine", ".hidden": b"mine", "store.tar.bak": b"mine", "images.tar.lz4": b"mine"}
    for name, data in foreign.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/store.tar").write_bytes(b"mine")
    (tmp_path / "store.roothash.p7s").write_bytes(b"a signature of the old root hash")
    build(tmp_path, store_json=b"new")
    assert (tmp_path / "folder/store.tar").read_bytes() == b"mine"
    (tmp_path / "folder/store.tar").unlink()
    (tmp_path / "folder").rmdir()
    assert content(tmp_path) == {**foreign, "store.json": b"new", SUMS_NAME: sums(store_json=b"new")}


def test_a_build_that_fails_changes_nothing(tmp_path: Path) -> None:
    build(tmp_path, store_tar=b"old")
    before = content(tmp_path)
    with pytest.raises(ZeroDivisionError), staged_output(tmp_path) as stage:
        stage.write("store.json", b"new")
        raise ZeroDivisionError
    assert content(tmp_path) == before


def test_a_build_that_fails_takes_the_folders_back_that_it_made(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), staged_output(tmp_path / "a/b/out") as stage:
        stage.write("store.json", b"new")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_others_use_meanwhile_stays(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), staged_output(tmp_path / "a/out"):
        (tmp_path / "a/theirs").write_bytes(b"")
        raise KeyboardInterrupt
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["theirs"]


def test_publishing_goes_through_a_state_without_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path, store_tar=b"old", store_json=b"old")
    states: list[set[str]] = []
    rename = Path.replace

    def spying(self: Path, target: Path) -> Path:
        states.append({path.name for path in tmp_path.iterdir() if not path.name.startswith(STAGE_PREFIX)})
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", spying)
    build(tmp_path, store_tar=b"new", store_json=b"new")
    assert states == [{"store.tar", "store.json"}, {"store.tar", "store.json"}, {"store.tar", "store.json"}]
    assert content(tmp_path)[SUMS_NAME] == sums(store_tar=b"new", store_json=b"new")


def test_what_a_killed_build_left_is_cleared_away(tmp_path: Path) -> None:
    left = tmp_path / f"{STAGE_PREFIX}k1ll3d"
    (left / "deep").mkdir(parents=True)
    (left / "store.tar").write_bytes(b"partial")
    (tmp_path / f"{STAGE_PREFIX}file").write_bytes(b"a file is no stage")
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_bytes(b"")
    (tmp_path / f"{STAGE_PREFIX}link").symlink_to(elsewhere)
    build(tmp_path, store_tar=b"new")
    assert not left.exists()
    assert (elsewhere / "precious").exists()
    assert (tmp_path / f"{STAGE_PREFIX}file").exists()


def test_a_second_build_is_refused_while_the_first_one_runs(tmp_path: Path) -> None:
    with staged_output(tmp_path) as stage:
        stage.write("store.json", b"first")
        with pytest.raises(OutputUnusable, match="another build is writing to") as caught, staged_output(tmp_path):
            pass
        assert "-o" in (caught.value.hint or "")
        stage.publish({"store.json": hashlib.sha256(b"first").hexdigest()})
    build(tmp_path, store_json=b"second")
    assert content(tmp_path)["store.json"] == b"second"


def test_the_lock_does_not_outlive_the_build(tmp_path: Path) -> None:
    build(tmp_path, store_json=b"one")
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)


def test_a_link_to_a_folder_is_that_folder(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")
    build(tmp_path / "out", store_json=b"1")
    assert (tmp_path / "out").is_symlink() and (tmp_path / "real/store.json").read_bytes() == b"1"


def test_a_link_in_an_artifact_s_place_is_replaced_not_followed(tmp_path: Path) -> None:
    build(tmp_path / "out", store_json=b"0", store_tar=b"0")
    (tmp_path / "precious").write_bytes(b"mine")
    for name in ("store.json", "store.tar"):
        (tmp_path / "out" / name).unlink()
        (tmp_path / "out" / name).symlink_to("../precious")
    build(tmp_path / "out", store_json=b"1")
    assert (tmp_path / "precious").read_bytes() == b"mine"
    assert not (tmp_path / "out/store.json").is_symlink() and not (tmp_path / "out/store.tar").is_symlink()


@pytest.mark.parametrize("name", ["images.tar", "store.roothash.p7s", SUMS_NAME])
def test_a_file_of_somebody_else_with_an_artifact_s_name_is_refused_and_stays(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    assert str(tmp_path / name) in str(unusable(tmp_path))
    assert content(tmp_path) == {name: b"mine"}


def test_another_program_s_sums_make_nothing_ours(tmp_path: Path) -> None:
    theirs = {"images.tar": b"mine", "thesis.tex": b"mine"}
    (tmp_path / SUMS_NAME).write_bytes(b"".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode() for name, data in theirs.items()))
    (tmp_path / "images.tar").write_bytes(b"mine")
    assert SUMS_NAME in str(unusable(tmp_path))
    (tmp_path / SUMS_NAME).unlink()
    assert "images.tar" in str(unusable(tmp_path))
    assert (tmp_path / "images.tar").read_bytes() == b"mine"


def test_a_link_of_somebody_else_to_nowhere_is_refused_as_well(tmp_path: Path) -> None:
    (tmp_path / "store.tar").symlink_to("elsewhere")
    assert "store.tar" in str(unusable(tmp_path))


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_after_a_power_cut_in_publishing_the_next_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int) -> None:
    out, cut = tmp_path / "out", tmp_path / "cut"
    build(out, store_tar=b"old", images_tar=b"old")
    replace, count = Path.replace, 0

    def replace_some(self: Path, target: Path) -> Path:
        nonlocal count
        if count == moved:
            shutil.copytree(out, cut)
        count += 1
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", replace_some)
    build(out, store_tar=b"new", record_json=b"new")
    monkeypatch.undo()
    assert SUMS_NAME not in content_names(cut)
    build(cut, record_json=b"newest")
    assert content_names(cut) == {"record.json", SUMS_NAME}


def content_names(out: Path) -> set[str]:
    return {path.name for path in out.iterdir()}


def unusable(out: Path) -> OutputUnusable:
    with pytest.raises(OutputUnusable) as caught, staged_output(out):
        pass
    assert caught.value.hint
    return caught.value


def test_a_file_is_no_output_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    assert "File exists" in unusable(tmp_path / "file").message
    assert "Not a directory" in unusable(tmp_path / "file/below").message
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_link_to_nowhere_is_no_output_folder(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("nowhere")
    assert "File exists" in unusable(tmp_path / "out").message
    assert (tmp_path / "out").is_symlink() and not (tmp_path / "nowhere").exists()


def test_a_folder_in_an_artifact_s_place_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    build(tmp_path, store_json=b"old")
    (tmp_path / "store.tar").mkdir()
    with pytest.raises(OutputUnusable, match=r"store.tar is a folder"), staged_output(tmp_path):
        pass
    assert (tmp_path / "store.json").read_bytes() == b"old" and (tmp_path / SUMS_NAME).exists()


def test_an_unwritable_folder_is_refused(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere; tests/cli/test_build_output.py asks as nobody")
    tmp_path.chmod(0o555)
    assert "Permission denied" in unusable(tmp_path).message


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_said_plainly(tmp_path: Path, number: int) -> None:
    with pytest.raises(OutsideFailure, match=f"cannot write to {tmp_path}: {os.strerror(number)}") as caught, staged_output(tmp_path):
        raise OSError(number, os.strerror(number))
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_another_failure_of_the_system_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError), staged_output(tmp_path):
        raise ConnectionError


def test_an_artifact_is_written_once_and_only_under_a_known_name(tmp_path: Path) -> None:
    with staged_output(tmp_path) as stage:
        with stage.writer("store.tar") as write:
            write(b"1")
            write(b"2")
        assert stage.names() == ["store.tar"]
        assert stage.path("store.tar").read_bytes() == b"12"
        with pytest.raises(FileExistsError), stage.writer("store.tar"):
            pass
        with pytest.raises(AssertionError):
            stage.path("../evil")


def test_every_artifact_has_a_plain_name() -> None:
    assert len(set(ARTIFACTS)) == len(ARTIFACTS)
    assert not any("/" in name or name.startswith(".") for name in ARTIFACTS)


def test_the_sum_of_a_file_is_read_in_pieces(tmp_path: Path) -> None:
    data = os.urandom((2 << 20) + 5)
    (tmp_path / "f").write_bytes(data)
    seen: list[int] = []
    assert sha256_file(tmp_path / "f", seen.append) == (hashlib.sha256(data).hexdigest(), len(data))
    assert seen == [1 << 20, 1 << 20, 5]


OTHERS = ("root.img", "boot/a.cfg", "boot/b.cfg", SUMS_NAME)


def build_others(out: Path, **files: bytes) -> None:
    """A finished build of another verb; ``boot_a=b""`` is ``boot/a.cfg``, ``root=b""`` is ``root.img``."""
    named = {f"{name.replace('_', '/')}.{'cfg' if '_' in name else 'img'}": data for name, data in files.items()}
    with staged_output(out, OTHERS) as stage:
        for name, data in named.items():
            stage.write(name, data)
        assert stage.names() == sorted(named)
        stage.publish({name: hashlib.sha256(data).hexdigest() for name, data in named.items()})


def test_artifacts_in_a_subfolder_are_published_and_stale_ones_go(tmp_path: Path) -> None:
    build_others(tmp_path, root=b"1", boot_a=b"2", boot_b=b"3")
    (tmp_path / "boot/mine").write_bytes(b"mine")
    build_others(tmp_path, root=b"4", boot_b=b"5")
    found = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert found.pop(SUMS_NAME).decode().count("\n") == 2
    assert found == {"root.img": b"4", "boot/b.cfg": b"5", "boot/mine": b"mine"}


def test_a_verb_never_removes_what_only_another_one_writes(tmp_path: Path) -> None:
    (tmp_path / "store.tar").write_bytes(b"of a build")
    build_others(tmp_path, root=b"1")
    assert (tmp_path / "store.tar").read_bytes() == b"of a build"
    with staged_output(tmp_path, OTHERS) as stage, pytest.raises(AssertionError, match="no artifact"):
        stage.path("store.tar")
