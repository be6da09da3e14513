"""Other kernels than Debian 12's: one that is built for a sealed root and demands signatures, the newest of Debian, and an old one.

By name only: `SHIPLAP_REQUIRE=boots`. get_built_kernel and get_kernel bring the kernels.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from boot.builtkernel import Signer, another_signer, built_kernel
from boot.cases import requires_boots, said_everything
from boot.firmware import EPOCH, REFUSED, REPORT, Bench, Firmware
from boot.guest import busybox_root
from boot.machine import Console, Kernel, Machine
from boot.systemdinitrd import systemd_initramfs
from boot.test_boots_sealing import NO_BLKID, flipped
from erofsimages import use_new_erofs_utils
from shiplap.cli.kernel import look_at_kernel
from shiplap.rootfs.kernelcheck import Weight

pytestmark = requires_boots

NEWEST = "linux-image-cloud-amd64/trixie-backports"
OLD = "linux-image-cloud-amd64/bullseye"
# Which root it is, and who opened it.
ROOT = """\
echo "ROOT $(cat /sys/block/dm-0/dm/name) $(sed -n 's,^\\(/dev/[^ ]*\\) / ,\\1 ,p' /proc/mounts)"
echo "KERNEL $(uname -r)"
"""
NO_ROOT = "Kernel panic - not syncing: VFS: Unable to mount root fs"


def on_disk(bench: Bench, placement: str) -> Firmware:
    return bench.firmware(rootfs=("--placement", placement, "--disk"), placement=placement)


# --- a root that the kernel opens itself, without an initramfs -------------------------------------------------------


@pytest.mark.parametrize("placement", ["partition", "file"])
def test_the_kernel_opens_the_root_by_its_words_and_no_initramfs(bench: Bench, placement: str) -> None:
    firmware, (kernel, _) = on_disk(bench, placement), built_kernel()
    console = firmware.boot(REPORT + ROOT, kernel=(kernel, None), command_line=firmware.snippet("dm-mod.create.txt"))
    assert said_everything(console)
    assert console.value("KERNEL") == kernel.version
    assert console.value("ROOT").startswith("root /dev/root squashfs ro")
    assert "MOUNT /dev/mapper/shiplap-store /usr/share/shiplap/store squashfs ro" in console


def test_another_root_hash_in_those_words_ends_in_a_panic(bench: Bench) -> None:
    firmware, (kernel, _) = on_disk(bench, "partition"), built_kernel()
    swapped = firmware.root_hash.translate(str.maketrans("0123456789abcdef", "123456789abcdef0"))
    words = firmware.snippet("dm-mod.create.txt").replace(f" {firmware.root_hash} ", f" {swapped} ")
    assert swapped in words
    assert is_a_panic(firmware.boot(REPORT, kernel=(kernel, None), command_line=words))


@pytest.mark.parametrize(("partition", "offset"), [("root", 10), ("root-verity", 4096 + 8)], ids=["superblock", "top of the tree"])
def test_a_flipped_byte_ends_in_a_panic(bench: Bench, partition: str, offset: int) -> None:
    firmware, (kernel, _) = on_disk(bench, "partition"), built_kernel()
    with flipped(firmware, partition, offset):
        assert is_a_panic(firmware.boot(REPORT, kernel=(kernel, None), command_line=firmware.snippet("dm-mod.create.txt")))


def is_a_panic(console: Console) -> bool:
    """The kernel mounted no root, so that nothing can have started."""
    assert "device-mapper: verity: " in console
    assert "is corrupted" in console
    assert "UPTIME" not in console
    return NO_ROOT in console


# --- signatures ------------------------------------------------------------------------------------------------------

DEMANDED = "dm_verity.require_signatures=1"
# systemd goes on in no root that has none.
RELEASE = dict.fromkeys(("etc/os-release", "usr/lib/os-release"), (0o644, b"ID=guest\n"))
# The folder beside the store, with what the case wants there.
BESIDE = """\
cp -a /usr/share/shiplap /run/beside
{change}
mount -o bind /run/beside /usr/share/shiplap
"""
OPTIONS = "systemd.verity_root_options="
REJECTED = "verity: Root hash verification failed"


@dataclass(frozen=True)
class Signed:
    """A firmware whose root and store are signed by the key that the kernel trusts; and ``other``, by whom else somebody could sign."""

    firmware: Firmware
    kernel: Kernel
    initrd: Path
    signer: Signer
    other: Signer

    def forged(self, root_hash: str) -> dict[str, bytes]:
        """Signatures that are none of that root hash."""
        return {"another key": self.other.sign(root_hash), "another root hash": self.signer.sign(root_hash[::-1])}

    def case(self, **case: Any) -> Machine:
        return self.firmware.machine(words=DEMANDED, kernel=(self.kernel, self.initrd), memory_mib=1024, **case)


@pytest.fixture(scope="module")
def signed(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Signed:
    """`shiplap rootfs` runs twice, as a user's does: nobody knows the root hash before."""
    (kernel, signer), folder = built_kernel(), tmp_path_factory.mktemp("signed")
    base = bench.base("busybox docker os-release", lambda: busybox_root(files=RELEASE))
    # Another epoch, so that no other case gets this store with its signature.
    manifest: dict[str, Any] = {"placement": "partition", "epoch": EPOCH + 1}
    store = bench.store(**manifest)
    (store / "store.roothash.p7s").write_bytes(signer.sign((store / "store.roothash").read_text().strip()))
    options = ("--placement", "partition", "--disk")
    first = bench.firmware(base=base, rootfs=options, **manifest)
    (folder / "root.p7s").write_bytes(signer.sign(first.root_hash))
    words = ("--signature", str(folder / "root.p7s"), "--certificate", str(signer.certificate))
    firmware = bench.firmware(base=base, rootfs=(*options, *words), **manifest)
    assert firmware.root_hash == first.root_hash
    initrd = systemd_initramfs(kernel, folder / "initrd.gz")
    return Signed(firmware, kernel, initrd, signer, another_signer(folder))


def test_a_kernel_that_demands_signatures_opens_root_and_store_with_theirs(signed: Signed) -> None:
    """The root by the words of kernel-cmdline.txt, read by systemd; the store by the target kit."""
    console = signed.case(after=REPORT + ROOT).run()
    assert said_everything(console)
    assert console.value("ROOT").startswith("root /dev/mapper/root squashfs ro")
    assert "MOUNT /dev/mapper/shiplap-store /usr/share/shiplap/store squashfs ro" in console
    assert REJECTED not in console


@pytest.mark.parametrize("which", ["none", "another key", "another root hash"])
def test_a_root_without_its_signature_is_not_opened(signed: Signed, which: str) -> None:
    words = [word for word in signed.firmware.snippet("kernel-cmdline.txt").split() if not word.startswith(OPTIONS)]
    if which != "none":
        forged = signed.forged(signed.firmware.root_hash)[which]
        words.append(f"{OPTIONS}root-hash-signature=base64:{b64encode(forged).decode()}")
    # systemd waits for the root's device, then offers a shell.
    with signed.case(after=REPORT, command_line=" ".join(words)).on() as machine:
        assert REJECTED in machine.until("Dependency failed for")
        assert "UPTIME" not in machine.console()


@pytest.mark.parametrize("which", ["none", "another key", "another root hash"])
def test_a_store_without_its_signature_is_refused_and_nothing_starts(signed: Signed, which: str) -> None:
    change = "rm /run/beside/store.roothash.p7s"
    if which != "none":
        forged = signed.forged((signed.firmware.out / "store.roothash").read_text().strip())[which]
        change = f"echo {b64encode(forged).decode()} | base64 -d >/run/beside/store.roothash.p7s"
    console = signed.case(after=REFUSED, before=BESIDE.format(change=change)).run()
    assert REJECTED in console
    assert "shiplap: ERROR: dm-verity refuses " in console
    assert "the data-root is made unusable, no container starts" in console
    assert "FAILED /etc/init.d/S59shiplap-store" in console
    assert "MOUNT shiplap-refused /var/lib/docker tmpfs ro" in console
    assert console.value("ENGINE") == "has ended"


def test_the_kernels_own_words_can_carry_no_signature(signed: Signed) -> None:
    """`root_hash_sig_key_desc` names a key in a ring, and nobody has put one there before the root is opened."""
    # With `rootwait` the kernel would wait for a device that it has refused to make.
    words = signed.firmware.snippet("dm-mod.create.txt").replace(" rootwait", "")
    console = signed.firmware.boot(REPORT, words=DEMANDED, kernel=(signed.kernel, None), command_line=words)
    assert REJECTED in console
    assert "UPTIME" not in console
    assert NO_ROOT in console


# --- the check of a kernel's configuration ---------------------------------------------------------------------------


NEEDED = ("SQUASHFS", "SQUASHFS_ZSTD", "SQUASHFS_XATTR", "EFI_PARTITION", "DM_VERITY", "DM_VERITY_VERIFY_ROOTHASH_SIG", "OVERLAY_FS",
          "TMPFS_XATTR", "NET_NS", "POSIX_MQUEUE", "MEMCG", "SECCOMP_FILTER")  # fmt: skip


def heaviest(config: Path, store: Path) -> set[str]:
    """Symbols without which the store cannot be used, or something of it."""
    return {one.symbol for one in look_at_kernel(str(config), store).findings if one.weight is not Weight.LOOK}


@pytest.mark.parametrize("package", [NEWEST, OLD])
def test_nothing_is_missing_in_kernels_of_debian_that_are_newer_and_older(bench: Bench, package: str) -> None:
    report = look_at_kernel(str(bench.kernel(package)[0].config), None)
    assert [one for one in report.findings if one.weight is not Weight.LOOK] == []


def test_the_check_is_content_with_the_kernel_that_was_booted_and_names_each_option_that_it_loses(signed: Signed, tmp_path: Path) -> None:
    store, text = signed.firmware.out, signed.kernel.config.read_text()
    assert look_at_kernel(str(signed.kernel.config), store).findings == ()
    for symbol in NEEDED:
        without = tmp_path / "config"
        without.write_text(text.replace(f"\nCONFIG_{symbol}=y\n", f"\n# CONFIG_{symbol} is not set\n"))
        assert heaviest(without, store) == {symbol}


# --- Debian's newest -------------------------------------------------------------------------------------------------


def test_the_newest_kernel_names_partition_uuids_so_that_neither_udev_nor_blkid_is_needed(bench: Bench) -> None:
    """The counterpart of the refusal in test_boots_sealing.py. The root is opened by an initramfs that has a blkid."""
    console = on_disk(bench, "partition").boot(REPORT + ROOT, before=NO_BLKID, kernel=bench.kernel(NEWEST))
    assert said_everything(console)
    assert "MOUNT /dev/mapper/shiplap-store /usr/share/shiplap/store squashfs ro" in console


def test_a_machine_with_the_newest_kernel_runs_its_container(bench: Bench) -> None:
    kernel, initrd = bench.kernel(NEWEST)
    console = bench.firmware().boot(REPORT + ROOT, kernel=(kernel, initrd))
    assert said_everything(console)
    assert console.value("KERNEL") == kernel.version
    assert "MOUNT /dev/mapper/shiplap-store /usr/share/shiplap/store squashfs ro" in console


def test_an_erofs_store_runs_its_container_on_the_newest_kernel(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    use_new_erofs_utils(monkeypatch)
    console = bench.firmware(outputs=["erofs", "verity"]).boot(REPORT, kernel=bench.kernel(NEWEST))
    assert said_everything(console)
    assert "MOUNT /dev/mapper/shiplap-store /usr/share/shiplap/store erofs ro" in console
