"""``shiplap rootfs`` beyond its root: an EROFS, a signature with its partition, what UEFI boots, the provisioning medium."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from commandline import shiplap_command
from erofsimages import use_new_erofs_utils
from firmwares import BASE, OS_RELEASE, store_folder
from requirement import SEARCH_PATH, require
from shiplap.rootfs.signature import SignatureRefused, checked_signature

FAST = ("--compression", "none", "--progress", "quiet")
STUB = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
MIB = 1 << 20


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store_folder(tmp_path_factory.mktemp("store") / "store", placement="partition")


def rootfs(tmp_path: Path, store: Path, *words: str, out: str = "fw", fast: tuple[str, ...] = FAST) -> subprocess.CompletedProcess[str]:
    for name, content in (("base.tar", BASE), ("kernel", b"kernel" * 1000), ("initrd", b"initrd" * 1001)):
        (tmp_path / name).write_bytes(content)
    arguments = (
        "rootfs",
        "--base",
        str(tmp_path / "base.tar"),
        "--store",
        str(store),
        "-o",
        str(tmp_path / out),
        "--placement",
        "partition",
    )
    return shiplap_command(*arguments, *fast, *words)


def made(tmp_path: Path, store: Path, *words: str, **options: str) -> Path:
    done = rootfs(tmp_path, store, *words, **options)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stderr
    return tmp_path / options.get("out", "fw")


def boots(tmp_path: Path) -> tuple[str, ...]:
    return ("--kernel", str(tmp_path / "kernel"), "--initrd", str(tmp_path / "initrd"), "--append", "console=ttyS0")


def members(iso: Path) -> dict[str, bytes]:
    require("libarchive-tools")
    names = subprocess.run(["bsdtar", "-tf", iso], capture_output=True, text=True, check=True).stdout.split()
    return {name: subprocess.run(["bsdtar", "-xOf", iso, name], capture_output=True, check=True).stdout for name in names if name != "."}


def test_the_medium_has_the_partitions_of_the_disk_image_and_what_boots(store: Path, tmp_path: Path) -> None:
    out = made(tmp_path, store, "--disk", "--data-size", "2M", "--provision", *boots(tmp_path))
    found = members(out / "provision.iso")
    assert sorted(found) == ["CMDLINE.TXT", "INITRD.IMG", "KERNEL", "PART1.IMG", "PART2.IMG", "PART3.IMG", "PART4.IMG"]
    wanted = (out / "rootfs.squashfs", out / "rootfs.verity", store / "store.squashfs", store / "store.verity")
    for number, path in enumerate(wanted, 1):
        assert found[f"PART{number}.IMG"] == path.read_bytes()
    assert found["KERNEL"] == b"kernel" * 1000
    assert found["INITRD.IMG"] == (out / "provision.initrd").read_bytes()
    assert found["CMDLINE.TXT"] == (out / "boot/provision-cmdline.txt").read_bytes() == b"rdinit=/shiplap/install console=ttyS0\n"


def installer(out: Path, initrd: bytes, folder: Path) -> Path:
    """The installer's files, unpacked from behind the board's initramfs."""
    require("libarchive-tools")
    folder.mkdir()
    archive = (out / "provision.initrd").read_bytes()[len(initrd) :].lstrip(b"\0")
    subprocess.run(["bsdcpio", "-i", "--quiet"], input=archive, cwd=folder, check=True)
    return folder / "shiplap"


def test_the_installer_knows_the_medium_and_the_sum_of_every_partition(store: Path, tmp_path: Path) -> None:
    out = made(tmp_path, store, "--data-size", "2M", "--provision", *boots(tmp_path))
    assert not (out / "disk.img").exists()
    here = installer(out, b"initrd" * 1001, tmp_path / "unpacked")
    iso = (out / "provision.iso").read_bytes()
    for line in (here / "payload").read_text().splitlines():
        name, start, _, count, digest = line.split()
        content = iso[int(start) * MIB : (int(start) + int(count)) * MIB]
        assert hashlib.sha256(content).hexdigest() == digest, name
    conf = dict(line.split("=") for line in (here / "provision.conf").read_text().splitlines())
    assert iso[16 * 2048 + 40 :].startswith(conf["MEDIUM"].encode() + b" ")
    assert conf["DATA_MIB"] == "2"
    assert (here / "install").stat().st_mode & 0o777 == 0o755


def test_two_firmwares_have_media_of_different_names(store: Path, tmp_path: Path) -> None:
    names = set()
    for size in ("2M", "3M"):
        out = made(tmp_path, store, "--data-size", size, "--provision", *boots(tmp_path), out=f"fw{size}")
        names.add((out / "provision.iso").read_bytes()[16 * 2048 + 40 :][:32])
    assert len(names) == 2


def test_the_same_ingredients_give_the_same_medium(store: Path, tmp_path: Path) -> None:
    require("efi")
    words = ("--disk", "--data-size", "2M", "--provision", "--efi-stub", STUB, *boots(tmp_path))
    first, second = (made(tmp_path, store, *words, out=name) for name in ("one", "two"))
    sums = (first / "SHA256SUMS").read_text()
    assert sums == (second / "SHA256SUMS").read_text()
    for name in ("provision.iso", "provision.initrd", "provision.efi", "disk.img", "esp.img", "linux.efi"):
        assert f"  {name}\n" in sums


def test_with_a_stub_disk_and_medium_have_what_uefi_looks_for(store: Path, tmp_path: Path) -> None:
    require("efi", "gpt")
    out = made(tmp_path, store, "--disk", "--provision", "--efi-stub", STUB, *boots(tmp_path))
    sfdisk = shutil.which("sfdisk", path=SEARCH_PATH)
    assert sfdisk is not None
    said = json.loads(subprocess.run([sfdisk, "-J", out / "disk.img"], capture_output=True, check=True).stdout)["partitiontable"]
    esp = said["partitions"][0]
    assert (esp["name"], esp["type"].lower()) == ("esp", "c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
    boot = subprocess.run(
        ["mtype", "-i", f"{out / 'disk.img'}@@{esp['start'] * 512}", "::EFI/BOOT/BOOTX64.EFI"], capture_output=True, check=True
    )
    assert boot.stdout == (out / "linux.efi").read_bytes()
    command_line = (out / "boot/kernel-cmdline.txt").read_text().strip() + " console=ttyS0"
    assert command_line.encode() + b"\0" in boot.stdout
    (tmp_path / "efi.img").write_bytes(members(out / "provision.iso")["EFI.IMG"])
    program = subprocess.run(["mtype", "-i", tmp_path / "efi.img", "::EFI/BOOT/BOOTX64.EFI"], capture_output=True, check=True).stdout
    assert program == (out / "provision.efi").read_bytes()
    assert (out / "provision.initrd").read_bytes() in program
    for name in ("genimage.cfg", "disk.wks"):
        assert "esp.img" in (out / "boot" / name).read_text()


def test_the_sums_cover_the_media_and_a_later_run_without_them_removes_them(store: Path, tmp_path: Path) -> None:
    out = made(tmp_path, store, "--provision", *boots(tmp_path))
    subprocess.run(["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=out, check=True)
    made(tmp_path, store)
    assert not list(out.glob("provision*")) and not list(out.glob("boot/provision*"))


def test_a_second_slot_waits_for_the_first_update_with_room_for_larger_images(store: Path, tmp_path: Path) -> None:
    require("gpt")
    words = ("--disk", "--provision", *boots(tmp_path), "--slots", "2", "--root-size", "300M", "--store-size", "100M", "--data-size", "2M")
    out = made(tmp_path, store, *words)
    sfdisk = shutil.which("sfdisk", path=SEARCH_PATH)
    assert sfdisk is not None
    table = json.loads(subprocess.run([sfdisk, "-J", out / "disk.img"], capture_output=True, check=True).stdout)["partitiontable"]
    found = {one["name"]: (one["type"], one["size"] // 2048) for one in table["partitions"]}
    assert list(found) == [f"{name}-{slot}" for slot in "ab" for name in ("root", "root-verity", "store", "store-verity")] + ["data"]
    for name, mebibytes in (("root", 300), ("root-verity", 3), ("store", 100), ("store-verity", 1)):
        assert found[f"{name}-a"] == found[f"{name}-b"]
        assert found[f"{name}-a"][1] == mebibytes
    assert len({one["uuid"] for one in table["partitions"]}) == 9
    here = installer(out, b"initrd" * 1001, tmp_path / "unpacked")
    listed = [line.split() for line in (here / "payload").read_text().splitlines()]
    assert [name for name, *_ in listed] == ["root-a", "root-verity-a", "store-a", "store-verity-a"]
    assert int(listed[0][3]) < 3, "only what there is of the root is written"
    conf = dict(line.split("=") for line in (here / "provision.conf").read_text().splitlines())
    assert (conf["END_MIB"], conf["DATA_ENTRY"]) == ("809", "8")


def test_kernel_and_initramfs_may_come_from_the_base(store: Path, tmp_path: Path) -> None:
    out = made(tmp_path, store, "--provision", "--kernel", "base:/bin/ash", "--initrd", "base:/etc/os-release")
    found = members(out / "provision.iso")
    assert found["KERNEL"] == b"#!" * 40_000
    assert found["INITRD.IMG"].startswith(OS_RELEASE)
    assert (out / "provision.initrd").read_bytes() == found["INITRD.IMG"]


MISUSES = [
    (("--provision",), "--provision needs what is booted"),
    (("--disk", "--efi-stub", STUB), "--efi-stub needs what is booted"),
    (("--disk", "--kernel", "KERNEL"), "add --provision or --efi-stub FILE"),
    (("--efi-stub", STUB, "--kernel", "KERNEL", "--initrd", "KERNEL"), "add --disk or --provision"),
    (("--provision", "--kernel", "KERNEL", "--initrd", "/nowhere"), "cannot read the initramfs /nowhere: No such file"),
    (("--provision", "--kernel", "KERNEL", "--initrd", "KERNEL", "--append", "a\nb"), "on one line"),
    (("--slots", "2"), "--slots is for the disk image"),
    (("--disk", "--root-size", "4K"), "its partition 4096"),
    (("--provision", "--kernel", "base:/nowhere", "--initrd", "KERNEL"), "the base has no file /nowhere for the kernel"),
    (("--provision", "--kernel", "/dev/null", "--initrd", "KERNEL"), "the kernel /dev/null is empty"),
    (("--disk", "--efi-stub", "KERNEL", "--kernel", "KERNEL", "--initrd", "KERNEL"), "is no EFI program"),
    (("--signature", "KERNEL"), "--signature and --certificate belong together"),
    (("--signature", "KERNEL", "--certificate", "KERNEL"), "is no certificate in PEM"),
    (("--filesystem", "erofs", "--compression", "gzip"), "'gzip' is no compression of EROFS"),
    (("--compression", "lz4hc"), "'lz4hc' is no compression of SquashFS"),
]


@pytest.mark.parametrize(("words", "said"), MISUSES)
def test_what_does_not_fit_together_is_refused(store: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = rootfs(
        tmp_path, store, *(str(tmp_path / "kernel") if word == "KERNEL" else word for word in words), fast=("--progress", "quiet")
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert not (tmp_path / "fw/SHA256SUMS").exists()


# --- EROFS -----------------------------------------------------------------------------------------------------------


def test_an_erofs_root_is_sealed_and_named_in_every_snippet(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("veritysetup")
    use_new_erofs_utils(monkeypatch)
    words = ("--filesystem", "erofs", "--disk")
    out = made(tmp_path, store, *words)
    assert not (out / "rootfs.squashfs").exists()
    subprocess.run(["fsck.erofs", out / "rootfs.erofs"], check=True, capture_output=True)
    root_hash = (out / "rootfs.roothash").read_text().strip()
    subprocess.run(["veritysetup", "verify", out / "rootfs.erofs", out / "rootfs.verity", root_hash], check=True)
    listed = subprocess.run(
        ["dump.erofs", "--path=/usr/sbin/shiplap-target", out / "rootfs.erofs"], capture_output=True, text=True, check=True
    )
    assert "shiplap-target" in listed.stdout
    for name in ("kernel-cmdline.txt", "kernel-cmdline-usr.txt", "dm-mod.create.txt", "grub.cfg", "boot.cmd"):
        text = (out / "boot" / name).read_text()
        assert "fstype=erofs" in text and "squashfs" not in text, name
    for name in ("genimage.cfg", "disk.wks", "sw-description", "mender-module", "rauc-hook"):
        assert "rootfs.erofs" in (out / "boot" / name).read_text(), name
    assert json.loads((out / "record.json").read_text())["tools"][0]["tool"] == "mkfs.erofs"
    again = made(tmp_path, store, *words, out="again")
    assert (again / "SHA256SUMS").read_text() == (out / "SHA256SUMS").read_text()


def test_two_erofs_roots_have_different_uuids_and_a_squashfs_goes(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_new_erofs_utils(monkeypatch)
    made(tmp_path, store)
    out = made(tmp_path, store, "--filesystem", "erofs")
    assert not (out / "rootfs.squashfs").exists()
    other = made(tmp_path, store, "--filesystem", "erofs", "--source-date-epoch", "5", out="other")
    uuids = {(path / "rootfs.erofs").read_bytes()[1024 + 48 : 1024 + 64] for path in (out, other)}
    assert len(uuids) == 2


# --- a signature -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("board", "other"):
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-days", "2",
                   "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
    return folder


def sign(root_hash: str, keys: Path, name: str, out: Path) -> Path:
    """As docs/rootfs.md says."""
    command = ["openssl", "smime", "-sign", "-nocerts", "-noattr", "-binary", "-inkey", keys / f"{name}.key",
               "-signer", keys / f"{name}.pem", "-outform", "der", "-out", out]  # fmt: skip
    subprocess.run(command, input=root_hash.encode(), check=True, capture_output=True)
    return out


def test_a_signature_attached_later_gets_its_partition_and_its_word(store: Path, tmp_path: Path, keys: Path) -> None:
    require("gpt")
    first = made(tmp_path, store, "--disk", out="unsigned")
    root_hash = (first / "rootfs.roothash").read_text().strip()
    p7s = sign(root_hash, keys, "board", tmp_path / "sig.p7s")
    out = made(tmp_path, store, "--disk", "--signature", str(p7s), "--certificate", str(keys / "board.pem"))
    for name in ("rootfs.squashfs", "rootfs.verity", "rootfs.roothash"):
        assert (out / name).read_bytes() == (first / name).read_bytes()
    assert (out / "rootfs.roothash.p7s").read_bytes() == p7s.read_bytes()
    document = json.loads((out / "rootfs.verity-sig").read_text())
    said = subprocess.run(
        ["openssl", "x509", "-in", keys / "board.pem", "-noout", "-fingerprint", "-sha256"], capture_output=True, text=True, check=True
    )
    fingerprint = said.stdout.strip().partition("=")[2].replace(":", "").lower()
    assert (document["rootHash"], document["certificateFingerprint"]) == (root_hash, fingerprint)
    sfdisk = shutil.which("sfdisk", path=SEARCH_PATH)
    assert sfdisk is not None
    table = json.loads(subprocess.run([sfdisk, "-J", out / "disk.img"], capture_output=True, check=True).stdout)["partitiontable"]
    part = next(one for one in table["partitions"] if one["name"] == "root-verity-sig-a")
    assert part["type"].lower() == "41092b05-9fc8-4523-994f-2def0408b176"
    content = (out / "disk.img").read_bytes()[part["start"] * 512 : (part["start"] + part["size"]) * 512]
    assert json.loads(content.rstrip(b"\0")) == document
    assert f"root-hash-signature=base64:{document['signature']}" in (out / "boot/kernel-cmdline.txt").read_text()


def test_systemd_dissect_reads_the_signature_from_the_disk(store: Path, tmp_path: Path, keys: Path) -> None:
    dissect = shutil.which("systemd-dissect")
    if dissect is None:
        pytest.skip("systemd-dissect is not installed")
    first = made(tmp_path, store, "--disk", out="unsigned")
    p7s = sign((first / "rootfs.roothash").read_text().strip(), keys, "board", tmp_path / "sig.p7s")
    out = made(tmp_path, store, "--disk", "--signature", str(p7s), "--certificate", str(keys / "board.pem"))
    done = subprocess.run([dissect, "--json=short", out / "disk.img"], capture_output=True, text=True, check=False)
    if "loop" in done.stderr:
        pytest.skip(f"systemd-dissect has no loop device: {done.stderr}")
    found = {one["designator"]: one for one in json.loads(done.stdout.splitlines()[-1])["mounts"]} if done.returncode == 0 else {}
    assert found["root"]["verity"] == "signed", done.stdout + done.stderr


def test_a_signature_of_something_else_or_by_somebody_else_is_refused(store: Path, tmp_path: Path, keys: Path) -> None:
    root_hash = "ab" * 32
    board = keys / "board.pem"
    assert (
        checked_signature(sign(root_hash, keys, "board", tmp_path / "sig.p7s"), board, root_hash)[0] == (tmp_path / "sig.p7s").read_bytes()
    )
    for name, content in (("board", "ba" * 32), ("other", root_hash), ("board", root_hash + "\n")):
        with pytest.raises(SignatureRefused, match=f"is no signature of the root hash {root_hash}"):
            checked_signature(sign(content, keys, name, tmp_path / "sig.p7s"), board, root_hash)
    done = rootfs(tmp_path, store, "--signature", str(tmp_path / "sig.p7s"), "--certificate", str(board))
    assert (done.returncode, (tmp_path / "fw").exists()) == (2, False)
    assert "is no signature of the root hash" in done.stderr
