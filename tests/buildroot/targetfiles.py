"""What compiled packages would have brought into the root file system: this system's BusyBox, Docker and veritysetup, as files."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from boot.guest import busybox_root

# From Buildroot itself, or decided by it: its skeleton, its init, its users.
_BUILDROOTS = ("etc/passwd", "etc/group", "etc/inittab", "etc/init.d/", "bin", "sbin", "lib", "lib64", "var/run")
_CASE = """\
#!/bin/sh
# The test's own last words; the scripts come on a disk.
[ "$1" = start ] || exit 0
mkdir -p /run/case
tar -xf "$(disk case)" -C /run/case
sh /run/case/after
echo "CASE ENDS"
poweroff -f
"""
# Stands for the packages urandom-scripts, cgroupfs-mount and others that a board has.
_MOUNTS = """\
#!/bin/sh
[ "$1" = start ] || exit 0
mount -t cgroup2 cgroup /sys/fs/cgroup
"""


def target_files(checkout: Path) -> dict[str, tuple[int, bytes] | str]:
    """Path → (mode, content), or a link's target."""
    files: dict[str, tuple[int, bytes] | str] = {}
    with tarfile.open(fileobj=io.BytesIO(busybox_root())) as tar:
        for member in tar:
            # Buildroot's lib64 is a link to lib.
            name = member.name.replace("usr/lib64/", "usr/lib/")
            if member.isdir() or any(name == one or (one.endswith("/") and name.startswith(one)) for one in _BUILDROOTS):
                continue
            if member.issym():
                files[name] = member.linkname
            else:
                content = tar.extractfile(member)
                assert content is not None
                files[name] = (member.mode, content.read())
    files["etc/inittab"] = (0o644, (checkout / "package/busybox/inittab").read_bytes())
    files["etc/init.d/S30mounts"] = (0o755, _MOUNTS.encode())
    files["etc/init.d/S99case"] = (0o755, _CASE.encode())
    return files
