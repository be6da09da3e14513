"""A base root file system of Debian packages with systemd: unpacked, not installed, so no root and no chroot is needed.

What maintainer scripts would do and a read-only root needs is written here: users, links that enable units, tmpfs in /etc/fstab.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from boot.guest import LINKS, RootTar
from requirement import missing

SYSTEM = ("systemd-sysv", "udev", "dbus", "usr-is-merged", "coreutils", "dash", "bash", "grep", "sed", "mawk", "diffutils", "findutils",
          "util-linux", "mount", "hostname", "kmod", "tar", "libc-bin", "cryptsetup-bin", "e2fsprogs")  # fmt: skip
DOCKER = ("docker.io",)
_LEFT_OUT = ("usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/perl/", "usr/share/zoneinfo/", "usr/share/i18n/",
             "usr/lib/udev/hwdb.d/", "usr/lib/x86_64-linux-gnu/gconv/", "usr/share/bash-completion/", "usr/bin/ctr/",
             "usr/bin/containerd-stress/", "usr/bin/perl")  # fmt: skip
# deb-systemd-helper(1p) would read [Install] of the packages' units.
_ENABLED = {
    "docker.service": "multi-user.target.wants",
    "docker.socket": "sockets.target.wants",
    "containerd.service": "multi-user.target.wants",
}
FSTAB = """\
tmpfs /tmp tmpfs defaults 0 0
tmpfs /var/log tmpfs defaults 0 0
tmpfs /var/tmp tmpfs defaults 0 0
tmpfs /var/lib/containerd tmpfs defaults 0 0
tmpfs /var/lib/systemd tmpfs defaults 0 0
"""
# nofail: the device goes on without it, and it is the kit's unit that has to keep the engine from starting.
_DATA = "/dev/disk/by-id/virtio-data /var/lib/docker ext4 noatime,nofail,x-systemd.device-timeout=30 0 2\n"
# Before everything that the kit or the engine does; its files come from the disk of the case.
_BEFORE = """\
[Unit]
Description=What the case does before the store is opened
DefaultDependencies=no
After=local-fs.target systemd-udev-settle.service
Wants=systemd-udev-settle.service
Before=shiplap-store.service sysinit.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/run-case before
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
"""
_AFTER = """\
[Unit]
Description=What the case does when everything has been started, or has failed
After=shiplap-containers.service docker.service docker.socket podman.service

[Service]
Type=oneshot
ExecStart=/usr/bin/run-case after
ExecStopPost=/usr/bin/systemctl --no-block poweroff
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
TimeoutStartSec=infinity
"""
_RUN_CASE = """\
#!/bin/sh
# run-case before|after
mkdir -p /run/case
if [ ! -e /run/case/read ]; then tar -xf "$(disk case)" -C /run/case && : >/run/case/read; fi
echo "UPTIME $1 $(cut -d' ' -f1 /proc/uptime)"
if [ -e "/run/case/$1" ]; then sh "/run/case/$1"; fi
[ "$1" = before ] || { echo "CASE ENDS"; sync; }
"""


def debian_root(packages: Sequence[str] = DOCKER, data_disk: bool = False, files: dict[str, tuple[int, bytes]] | None = None) -> bytes:
    """A tar of the root. ``data_disk``: /etc/fstab mounts the disk `data` as the data-root; ``files``: as in guest.py."""
    tar = RootTar()
    for name, target in LINKS:
        tar.folder(target) if not target.startswith("..") else None
        tar.link(name, target)
    for name, (mode, data) in (files or {}).items():
        tar.file(name, mode, data)
    _configuration(tar, data_disk)
    for package in sorted(debian_packages(packages).glob("*.deb")):
        unpack_debian(tar, package)
    _users(tar)
    tar.tools_of_cases()
    return tar.finished()


def _configuration(tar: RootTar, data_disk: bool) -> None:
    for folder in ("proc", "sys", "dev", "run", "tmp", "mnt", "data", "root", "var/log", "var/tmp", "var/lib/docker", "etc/docker",
                   "var/lib/containerd", "var/lib/systemd"):  # fmt: skip
        tar.folder(folder)
    tar.file("etc/fstab", 0o644, (FSTAB + (_DATA if data_disk else "")).encode())
    tar.file("etc/machine-id", 0o444, b"")
    tar.file("etc/hostname", 0o644, b"machine\n")
    units = "etc/systemd/system"
    tar.file(f"{units}/case-before.service", 0o644, _BEFORE.encode())
    tar.file(f"{units}/case-after.service", 0o644, _AFTER.encode())
    tar.link(f"{units}/sysinit.target.wants/case-before.service", "../case-before.service")
    tar.link(f"{units}/multi-user.target.wants/case-after.service", "../case-after.service")
    for unit, wants in _ENABLED.items():
        tar.link(f"{units}/{wants}/{unit}", f"/lib/systemd/system/{unit}")
    tar.link(f"{units}/default.target", "/lib/systemd/system/multi-user.target")
    tar.link(f"{units}/serial-getty@ttyS0.service", "/dev/null")  # the console is the cases'
    tar.file("usr/bin/run-case", 0o755, _RUN_CASE.encode())


def _users(tar: RootTar) -> None:
    tar.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nmessagebus:x:100:100::/nonexistent:/usr/sbin/nologin\n")
    tar.file("etc/group", 0o644, b"root:x:0:\ntty:x:5:\ndisk:x:6:\nmessagebus:x:100:\ndocker:x:999:\n")
    tar.link("usr/bin/sh", "dash")
    tar.link("usr/bin/awk", "mawk")


def debian_packages(packages: Sequence[str] = DOCKER) -> Path:
    """A folder of packed packages, the system's among them, kept between runs. SHIPLAP_BOOT_PACKAGES: another place for such folders."""
    parent = Path(os.environ.get("SHIPLAP_BOOT_PACKAGES") or Path(tempfile.gettempdir()) / "shiplap-boot-packages")
    folder = parent / "+".join(packages)
    script = Path(__file__).with_name("get_packages")
    done = subprocess.run(["sh", script, folder, *SYSTEM, *packages], capture_output=True, text=True, check=False)
    if done.returncode:
        missing("qemu", f"no packages for a guest with systemd: {done.stderr.strip()}")
    return folder


def unpack_debian(tar: RootTar, package: Path) -> None:
    """Everything of a package below the links of a merged /usr."""
    data = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True).stdout
    merged = {name: target for name, target in LINKS if not target.startswith("..")}
    with tarfile.open(fileobj=io.BytesIO(data)) as members:
        for member in members:
            first, _, rest = member.name.removeprefix("./").partition("/")
            name = "/".join(filter(None, (merged.get(first, first), rest)))
            if name in ("", ".") or f"{name}/".startswith(_LEFT_OUT):
                continue
            content = members.extractfile(member) if member.isreg() else None
            member.name = name
            if member.islnk():
                first, _, rest = member.linkname.removeprefix("./").partition("/")
                member.linkname = "/".join((merged.get(first, first), rest))
            member.pax_headers = {}
            tar.entry(member, content.read() if content else b"")
