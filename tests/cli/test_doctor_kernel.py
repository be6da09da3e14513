"""``shiplap doctor --kernel``: a kernel against the store of a build."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from archives import ImageSpec, docker_archive
from commandline import shiplap_command
from shiplap.cli.main import main
from storeimages import APP, BASE

ENGINE = ("OVERLAY_FS", "NAMESPACES", "PID_NS", "IPC_NS", "UTS_NS", "NET_NS", "CGROUPS", "CGROUP_SCHED", "POSIX_MQUEUE", "KEYS", "EPOLL",
          "FUTEX",
          "TMPFS", "TMPFS_XATTR")  # fmt: skip
SEALED = ("BLK_DEV_DM", "DM_VERITY", "CRYPTO_SHA256", "BLK_DEV_LOOP")


def config(folder: Path, *symbols: str) -> Path:
    path = folder / "config"
    path.write_text("".join(f"CONFIG_{symbol}=y\n" for symbol in symbols))
    return path


def build(folder: Path, **keys: Any) -> Path:
    archive = docker_archive(folder / "images.tar", [ImageSpec([BASE, APP], ["app:1"])])
    manifest = {"version": 1, "images": [{"ref": "app:1", "from": f"docker-archive:{archive}"}]} | keys
    (folder / "shiplap.yaml").write_text(json.dumps(manifest))
    done = shiplap_command("build", "-f", str(folder / "shiplap.yaml"), "-o", str(folder / "out"))
    assert done.returncode == 0, done.stderr
    return folder / "out"


def doctor(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = main(["doctor", "--json", *words])
    said: dict[str, Any] = json.loads(capsys.readouterr().out)["kernel"]
    return code, said


def missing(report: dict[str, Any]) -> set[str]:
    return {one["symbol"] for one in report["findings"] if one["weight"] == "missing"}


def test_the_store_decides_what_the_kernel_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = build(tmp_path, squashfs={"compression": "xz"}, verity={"hash": "sha512"})
    code, said = doctor(capsys, "--kernel", str(config(tmp_path, *ENGINE, *SEALED, "SQUASHFS", "SQUASHFS_ZSTD")), "--store", str(out))
    assert code == 1 and said["usable"] is False
    assert said["needs"]["compression"] == "xz" and said["needs"]["sealed"] is True and said["needs"]["has-xattrs"] is True
    assert missing(said) == {"CONFIG_SQUASHFS_XZ", "CONFIG_CRYPTO_SHA512", "CONFIG_SQUASHFS_XATTR"}
    assert all(one["why"] and one["remedy"] and one["state"] == "n" for one in said["findings"])
    good = config(tmp_path, *ENGINE, *SEALED, "SQUASHFS", "SQUASHFS_XZ", "SQUASHFS_XATTR", "CRYPTO_SHA512")
    code, said = doctor(capsys, "--kernel", str(good), "--store", str(out))
    assert (code, said["usable"], missing(said)) == (0, True, set())


def test_a_store_with_explicit_whiteouts_needs_no_extended_attributes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """OpenWrt's usual kernel."""
    kernel = config(tmp_path, *ENGINE, "SQUASHFS", "SQUASHFS_XZ", "BLK_DEV_LOOP")
    squashfs = {"compression": "xz", "whiteouts": "explicit"}
    archive = docker_archive(tmp_path / "images.tar", [ImageSpec([BASE, APP], ["app:1"])])
    images = [{"ref": "app:1", "from": f"docker-archive:{archive}", "allow-lost-xattrs": ["/bin/ping"]}]
    out = build(tmp_path, squashfs=squashfs, verity={"check": "sha256"}, images=images)
    code, said = doctor(capsys, "--kernel", str(kernel), "--store", str(out))
    assert (code, said["needs"]["has-xattrs"], missing(said)) == (0, False, set())


def test_an_unsealed_store_and_an_archive_need_less(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kernel = config(tmp_path, *ENGINE)
    (tmp_path / "a").mkdir()
    out = build(tmp_path / "a", mode="archive", containers=[{"name": "app", "image": "app:1", "network": "none"}])
    code, said = doctor(capsys, "--kernel", str(kernel), "--store", str(out))
    assert (code, said["needs"]["filesystem"], said["needs"]["bridge"]) == (0, "none", False)
    (tmp_path / "b").mkdir()
    out = build(tmp_path / "b", verity={"check": "sha256"}, **{"data-root": {"persistence": "persistent"}})
    code, said = doctor(capsys, "--kernel", str(kernel), "--store", str(out))
    assert code == 1 and said["needs"]["bridge"] is True
    assert missing(said) == {
        "CONFIG_SQUASHFS", "CONFIG_SQUASHFS_ZSTD", "CONFIG_SQUASHFS_XATTR", "CONFIG_BLK_DEV_LOOP", "CONFIG_EXT4_FS"
    }  # fmt: skip


def test_a_signature_beside_the_store_asks_for_a_kernel_that_checks_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = build(tmp_path)
    kernel = str(config(tmp_path, *ENGINE, *SEALED, "SQUASHFS", "SQUASHFS_ZSTD", "SQUASHFS_XATTR"))
    code, said = doctor(capsys, "--kernel", kernel, "--store", str(out))
    assert (code, said["needs"]["signed"]) == (0, False)
    (out / "store.roothash.p7s").write_bytes(b"attached after the build")
    code, said = doctor(capsys, "--kernel", kernel, "--store", str(out))
    assert (code, said["needs"]["signed"], missing(said)) == (1, True, {"CONFIG_DM_VERITY_VERIFY_ROOTHASH_SIG"})


def test_people_read_what_is_missing_and_what_to_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--kernel", str(config(tmp_path, *ENGINE, "SQUASHFS"))]) == 1
    said = capsys.readouterr().out
    assert "CONFIG_DM_VERITY: a sealed store is read through dm-verity" in said
    assert said.rstrip().endswith("This kernel lacks what the store needs.")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--kernel", "/nowhere"], "there is no file /nowhere"),
        (["--kernel", "/dev/zero"], "is not a regular file"),
        (["--kernel", "/etc/hostname"], "is no kernel configuration"),
        (["--store", "x"], "there is no --kernel"),
        (["--kernel", "CONFIG", "--store", "/nowhere"], "cannot read /nowhere/record.json"),
        (["--kernel", "CONFIG", "--store", "BROKEN"], "record.json"),
        (["--kernel", "CONFIG", "--store", "OTHER"], "has no target.tar"),
    ],
)
def test_what_cannot_be_read_is_one_clear_refusal(words: list[str], message: str, tmp_path: Path) -> None:
    for name, text in (("BROKEN", '{"options": 5'), ("OTHER", '{"options": {}}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text(text)
    config(tmp_path, "SQUASHFS").rename(tmp_path / "CONFIG")
    done = shiplap_command("doctor", "--json", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert message in json.loads(done.stderr.splitlines()[-1])["error"]["message"]
