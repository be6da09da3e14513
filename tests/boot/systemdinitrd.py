"""An initramfs with systemd and udev, of the same Debian packages as the guest's: what dracut or mkosi would make, without a chroot.

`/init` is systemd; its generators read the words of `kernel-cmdline.txt` as they do on a device, and nothing here helps them.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

from boot.debianguest import debian_packages, unpack_debian
from boot.guest import LINKS, RootTar
from boot.machine import Kernel, cpio_newc

_PACKAGES = ("base-files", "bash", "coreutils", "dash", "dmsetup", "kmod", "mount", "systemd", "systemd-sysv", "udev", "util-linux",
             "zlib1g")  # fmt: skip
# Of the libraries beside them everything, except what belongs to the guest alone.
_NOT_LIBRARIES = ("libc-bin", "libdb5.3", "libdbus-1-3", "libext2fs2", "libsemanage", "libsepol2", "libxtables", "libnf", "libss2")
_LEFT_OUT = ("usr/bin/perl", "usr/lib/systemd/boot/", "usr/share/")
# What a machine's root needs when it has no modules of its own.
_MODULES = ("virtio_blk", "virtio_pci", "squashfs", "erofs", "overlay", "dm-verity", "loop", "ext4")


def systemd_initramfs(kernel: Kernel, out: Path) -> Path:
    """Packed with gzip, because a boot loader has to read it."""
    tar = RootTar()
    for name, target in LINKS:
        tar.folder(target) if not target.startswith("..") else None
        tar.link(name, target)
    for folder in ("proc", "sys", "dev", "run", "tmp", "sysroot", "var/log"):
        tar.folder(folder)
    tar.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")
    tar.file("etc/group", 0o644, b"root:x:0:\ntty:x:5:\ndisk:x:6:\n")
    # By this file systemd knows that it is in an initramfs.
    tar.link("etc/initrd-release", "../usr/lib/os-release")
    tar.link("init", "usr/lib/systemd/systemd")
    tar.link("usr/bin/sh", "dash")
    for package in sorted(debian_packages().glob("*.deb")):
        name = package.name.partition("_")[0]
        if name in _PACKAGES or (name.startswith("lib") and not name.startswith(_NOT_LIBRARIES)):
            unpack_debian(tar, package)
    _kernel_modules(tar, kernel)
    out.write_bytes(gzip.compress(cpio_newc(_entries(tar.finished())), 6, mtime=0))
    return out


def _kernel_modules(tar: RootTar, kernel: Kernel) -> None:
    source = kernel.root / "lib/modules" / kernel.version
    for path in (*kernel.modules(_MODULES), *sorted(source.glob("modules.*"))):
        tar.file(f"usr/lib/modules/{kernel.version}/{path.relative_to(source)}", 0o644, path.read_bytes())
    tar.file("etc/modules-load.d/machine.conf", 0o644, "".join(f"{name}\n" for name in _MODULES).encode())


def _entries(packed: bytes) -> list[tuple[str, int, bytes]]:
    kinds = {tarfile.DIRTYPE: 0o040000, tarfile.SYMTYPE: 0o120000, tarfile.REGTYPE: 0o100000, tarfile.LNKTYPE: 0o100000}
    entries = []
    with tarfile.open(fileobj=io.BytesIO(packed)) as members:
        for member in members:
            if member.name.startswith(_LEFT_OUT):
                continue
            read = members.extractfile(member) if member.isreg() or member.islnk() else None
            data = member.linkname.encode() if member.issym() else read.read() if read else b""
            entries.append((member.name, kinds[member.type] | member.mode, data))
    return entries
