"""Real images: layers of the files that this Debian's own packages installed, whatever versions these are.

Needs root, to read all of them.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable

import pytest
from archives import ImageSpec
from requirement import missing

# What every Debian has; among it are setuid programs, hard links (perl, gzip) and some hundred symbolic links.
BASE = ("base-files", "bash", "coreutils", "gzip", "libc-bin", "login", "mount", "passwd", "perl-base", "tar", "util-linux")
# What more or less every Debian has; tzdata is a thousand links and small files.
MORE = ("bzip2", "dpkg", "ncurses-base", "ncurses-bin", "tzdata", "uidmap")
# cap_net_raw+ep as the kernel stores it (linux/capability.h, version 2): what a package's script would set.
CAPABILITY = "\x01\0\0\x02\0\x20" + 14 * "\0"


def debian_images() -> tuple[ImageSpec, ImageSpec]:
    """Two images that share a base: one that grew and was slimmed by whiteouts, one with changed attributes.

    Skips the test where this is no Debian.
    """
    if shutil.which("dpkg-query") is None:
        pytest.skip("not a Debian")
    if os.geteuid() != 0:
        missing("root", "only root can read every file of a package")
    base, more = files_of(BASE), files_of(MORE)
    first = layer(base)
    slim = ["usr/share/.wh.doc", "usr/share/locale/.wh..wh..opq", "usr/bin/.wh.perl"]
    grown = ImageSpec([first, layer(set(more) - set(base)), _marks(slim)], tags=["debian:grown"])
    changed = ImageSpec([first, layer(["usr", "usr/bin", "usr/bin/env", "usr/bin/mount"], changed=True)], tags=["debian:changed"])
    return grown, changed


def files_of(packages: Iterable[str]) -> list[str]:
    """Paths of what the installed ones among ``packages`` have on this machine, folders included, each under its real folder."""
    said = subprocess.run(["dpkg-query", "--listfiles", *packages], capture_output=True, text=True, check=False).stdout
    found = set()
    for line in said.splitlines():
        folder, _, name = line.rpartition("/")
        # A package may call bin/ what is usr/bin/ here; an image's configuration may have left documentation out.
        path = os.path.join(os.path.realpath(folder or "/"), name)
        if line.startswith("/") and name not in ("", ".") and os.path.lexists(path):
            found.add(path.lstrip("/"))
    return sorted(found)


def layer(paths: Iterable[str], *, changed: bool = False) -> bytes:
    """A layer's tar of this machine's files and the folders they are in; ``changed`` gives them other times, owners and a capability."""
    wanted = {parent for path in paths for parent in _parents(path)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(wanted):
            info = tar.gettarinfo(f"/{path}", path)
            info.uname = info.gname = ""
            info.mtime = int(info.mtime)
            if changed and info.isreg():
                info.uid, info.gid, info.mtime = 100_000, 65_536, 2**31
                info.pax_headers = {"SCHILY.xattr.security.capability": CAPABILITY}
            if info.isreg():
                with open(f"/{path}", "rb") as file:
                    tar.addfile(info, file)
            else:
                tar.addfile(info)
    return buffer.getvalue()


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _marks(paths: Iterable[str]) -> bytes:
    """A layer of whiteouts and opaque marks."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in paths:
            tar.addfile(tarfile.TarInfo(path))
    return buffer.getvalue()
