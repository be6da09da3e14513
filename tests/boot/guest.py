"""The base root file system of the test machines: BusyBox as init, the engine from this system's Debian packages."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

from boot.machine import libraries

ENGINE = (
    "dockerd",
    "docker",
    "containerd",
    "containerd-shim-runc-v2",
    "containerd-shim",
    "runc",
    "docker-proxy",
    "docker-init",
    "veritysetup",
)

_INITTAB = """\
::sysinit:/etc/init.d/rcS
::shutdown:/bin/umount -a -r
"""
_RC = """\
#!/bin/sh
# As Buildroot's: mounts, then every S script in order; then the test's own last words.
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs -o mode=0755 run /run
mount -t tmpfs tmp /tmp
mount -t tmpfs var /var/log
mount -t cgroup2 cgroup /sys/fs/cgroup
mkdir -p /dev/shm /dev/pts
[ -e /etc/fstab ] && mount -a
echo "UPTIME start $(cut -d' ' -f1 /proc/uptime)"
for script in /etc/init.d/S*; do
    "$script" start || echo "FAILED $script"
done
/etc/last-words
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


def base_tar(last_words: str, files: dict[str, tuple[int, bytes]] | None = None) -> bytes:
    """A tar of the root: ``last_words`` is a shell script that runs after the init scripts."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        seen: dict[str, None] = {}

        def folder(name: str) -> None:
            for parent in (*reversed([str(one) for one in Path(name).parents if str(one) != "."]), name):
                if parent not in seen:
                    seen[parent] = None
                    info = tarfile.TarInfo(parent)
                    info.type, info.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(info)

        def add(name: str, mode: int, data: bytes) -> None:
            if name in seen:
                return
            if "/" in name:
                folder(name.rpartition("/")[0])
            seen[name] = None
            info = tarfile.TarInfo(name)
            info.mode, info.size = mode, len(data)
            tar.addfile(info, io.BytesIO(data))

        def link(name: str, target: str) -> None:
            if name in seen:
                return
            folder(name.rpartition("/")[0]) if "/" in name else None
            seen[name] = None
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = tarfile.SYMTYPE, target, 0o777
            tar.addfile(info)

        for name in (
            "proc",
            "sys",
            "dev",
            "run",
            "tmp",
            "var/log",
            "var/lib/docker",
            "etc/docker",
            "root",
            "mnt",
            "data",
            "usr/bin",
            "usr/sbin",
            "usr/lib",
        ):
            folder(name)
        for name, target in (("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64"), ("var/run", "../run")):
            link(name, target)
        for program in ENGINE:
            path = shutil.which(program, path="/usr/bin:/usr/sbin:/sbin")
            if path is None:
                continue
            add(f"usr/bin/{program}", 0o755, Path(path).read_bytes())
            for library in libraries(Path(path)):
                name = str(library).lstrip("/")
                add(name if name.startswith("usr/") else f"usr/{name}", 0o755, library.resolve().read_bytes())
        busybox = Path(shutil.which("busybox") or "/bin/busybox")
        add("usr/bin/busybox", 0o755, busybox.read_bytes())
        for library in libraries(busybox):  # none, where it is a static one
            name = str(library).lstrip("/")
            add(name if name.startswith("usr/") else f"usr/{name}", 0o755, library.resolve().read_bytes())
        for applet in _applets(busybox):
            link(f"usr/bin/{applet}", "busybox")
        link("usr/sbin/init", "../bin/busybox")
        add("etc/inittab", 0o644, _INITTAB.encode())
        add("etc/init.d/rcS", 0o755, _RC.encode())
        add("etc/init.d/S60dockerd", 0o755, _DOCKERD.encode())
        add("etc/last-words", 0o755, last_words.encode())
        add("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")
        add("etc/group", 0o644, b"root:x:0:\ndocker:x:999:\n")
        for name, (mode, data) in (files or {}).items():
            add(name, mode, data)
    return made.getvalue()


def _applets(busybox: Path) -> list[str]:
    import subprocess

    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    return [one for one in listed if one not in ("busybox", "init")]
