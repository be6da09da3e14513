"""Base root file systems of the test machines. Here: BusyBox as init, the engine from this system's Debian packages.

A firmware serves many cases: what a case does in the machine comes on a disk of its own, `case`, as a tar of two shell scripts. ``before``
is sourced before the init scripts (it mounts the data disk, flips a configuration), ``after`` runs when they are through.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

from boot.machine import Disk
from systems import HERE, System

DOCKER = ("dockerd", "docker", "containerd", "containerd-shim-runc-v2", "containerd-shim", "runc", "docker-proxy", "docker-init")
TOOLS = ("veritysetup", "blkid", "mkfs.ext4")
LINKS = (("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"), ("var/run", "../run"))
FOLDERS = ("proc", "sys", "dev", "run", "tmp", "var/log", "var/tmp", "var/lib/docker", "etc/docker", "root", "mnt", "data", "usr/bin",
           "usr/sbin", "usr/lib", "usr/lib64")  # fmt: skip

_DISK = """\
#!/bin/sh
# disk SERIAL: the device of that disk.
for serial in /sys/block/vd*/serial; do
    if [ "$(cat "$serial")" = "$1" ]; then name=${serial#/sys/block/}; echo "/dev/${name%/serial}"; exit; fi
done
exit 1
"""
_WRITTEN = """\
#!/bin/sh
# written [SERIAL]: sectors of 512 bytes that the machine has written to that disk (kernel Documentation/block/stat.rst).
device=$(disk "${1:-data}") || { echo 0; exit; }
awk '{ print $7 }' "/sys/block/${device#/dev/}/stat"
"""
_INITTAB = """\
::sysinit:/etc/init.d/rcS
::shutdown:/bin/umount -a -r
"""
_RC = """\
#!/bin/sh
# As Buildroot's: mounts, then every S script in order; around them what the case brings.
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs -o mode=0755 run /run
mount -t tmpfs tmp /tmp
mount -t tmpfs var /var/log
mount -t tmpfs var /var/tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
mkdir -p /dev/shm /dev/pts /run/case
mount -t devpts devpts /dev/pts
if case=$(disk case); then tar -xf "$case" -C /run/case; fi
if [ -e /run/case/before ]; then . /run/case/before; fi
for script in /etc/init.d/S*; do
    sync
    had=$(written)
    echo "UPTIME ${script##*/} $(cut -d' ' -f1 /proc/uptime)"
    "$script" start || echo "FAILED $script"
    sync
    echo "SECTORS ${script##*/} $(($(written) - had))"
done
echo "UPTIME end $(cut -d' ' -f1 /proc/uptime)"
if [ -e /run/case/after ]; then sh /run/case/after; fi
echo "CASE ENDS"
sync
poweroff -f
"""
_DOCKERD = """\
#!/bin/sh
# Buildroot's S60dockerd in short: it starts the engine whatever happened before.
ulimit -n 4096
dockerd --bridge=none --iptables=false --ip6tables=false --exec-opt native.cgroupdriver=cgroupfs --data-root /var/lib/docker \\
    -H unix:///var/run/docker.sock >/var/log/dockerd.log 2>&1 &
"""


class RootTar:
    """A tar of a root file system, made entry by entry; of two entries with one name the first counts, parents come by themselves."""

    def __init__(self, system: System = HERE) -> None:
        self._system = system
        self._made = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._made, mode="w", format=tarfile.PAX_FORMAT)
        self._seen: dict[str, None] = {}

    def _is_new(self, name: str) -> bool:
        if name in self._seen:
            return False
        if "/" in name:
            self.folder(name.rpartition("/")[0])
        self._seen[name] = None
        return True

    def folder(self, name: str, mode: int = 0o755) -> None:
        if self._is_new(name):
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, mode
            self._tar.addfile(info)

    def file(self, name: str, mode: int, data: bytes) -> None:
        if self._is_new(name):
            info = tarfile.TarInfo(name)
            info.mode, info.size = mode, len(data)
            self._tar.addfile(info, io.BytesIO(data))

    def link(self, name: str, target: str) -> None:
        if self._is_new(name):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = tarfile.SYMTYPE, target, 0o777
            self._tar.addfile(info)

    def entry(self, info: tarfile.TarInfo, data: bytes) -> None:
        """One of another tar, as it is."""
        if self._is_new(info.name):
            self._tar.addfile(info, io.BytesIO(data))

    def program(self, name: str) -> None:
        """A program of the system with the libraries that it wants."""
        path = self._system.program(name)
        self.file(f"usr/bin/{name}", 0o755, path.read_bytes())
        self.libraries(path)

    def libraries(self, path: Path) -> None:
        for library, file in self._system.libraries(path).items():
            name = library.lstrip("/")
            self.file(name if name.startswith("usr/") else f"usr/{name}", 0o755, file.read_bytes())

    def tools_of_cases(self) -> None:
        """What the scripts of cases use."""
        self.file("usr/bin/disk", 0o755, _DISK.encode())
        self.file("usr/bin/written", 0o755, _WRITTEN.encode())

    def finished(self) -> bytes:
        self._tar.close()
        return self._made.getvalue()


def busybox_root(programs: Sequence[str] = DOCKER, files: dict[str, tuple[int, bytes]] | None = None, system: System = HERE) -> bytes:
    """A tar of the root with BusyBox init and those programs of the system; ``files``: name → (mode, content), in the place of ours."""
    tar = RootTar(system)
    for folder in FOLDERS:
        tar.folder(folder)
    for name, target in LINKS:
        tar.link(name, target)
    for name, (mode, data) in (files or {}).items():
        tar.file(name, mode, data)
    for name in (*programs, *TOOLS):
        tar.program(name)
    tar.program("busybox")
    for applet in system.busybox_applets():
        if applet not in ("busybox", "init"):
            tar.link(f"usr/bin/{applet}", "busybox")
    tar.link("usr/sbin/init", "../bin/busybox")
    tar.tools_of_cases()
    tar.file("etc/inittab", 0o644, _INITTAB.encode())
    tar.file("etc/init.d/rcS", 0o755, _RC.encode())
    if "dockerd" in programs:
        tar.file("etc/init.d/S60dockerd", 0o755, _DOCKERD.encode())
    tar.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")
    tar.file("etc/group", 0o644, b"root:x:0:\ndocker:x:999:\n")
    return tar.finished()


def case_disk(path: Path, before: str = "", after: str = "") -> Disk:
    """The disk with a case's scripts; either may be empty."""
    with tarfile.open(path, "w") as tar:
        for name, text in (("before", before), ("after", after)):
            if text:
                info = tarfile.TarInfo(name)
                info.size, info.mode = len(text.encode()), 0o755
                tar.addfile(info, io.BytesIO(text.encode()))
    return Disk(path, "case")
