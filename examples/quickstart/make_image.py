#!/usr/bin/env python3
"""Make a real container image from Debian packages, without an engine: ``make_image.py OUTPUT.tar``.

Redis on a small Debian, the way an image usually grows: a base, the service, a layer that changes and deletes, the
application. What layers can hold is in it on purpose: deletions, an opaque directory, setuid programs, a file
capability, hard links, a service user. The same packages give the same bytes. Needs only the standard library,
apt-get and dpkg-deb; the output is what `docker save` would write.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

# fmt: off
BASE = [
    "base-files", "base-passwd", "bash", "coreutils", "dash", "debianutils", "findutils", "grep", "gzip", "hostname",
    "libacl1", "libattr1", "libaudit1", "libblkid1", "libc-bin", "libc6", "libcap-ng0", "libcap2", "libcap2-bin",
    "libcrypt1", "libgcc-s1", "libgcrypt20", "libgmp10", "libgpg-error0", "liblz4-1", "liblzma5", "libmount1", "libpam-modules",
    "libpam-runtime", "libpam0g", "libpcre2-8-0", "libselinux1", "libsmartcols1", "libsystemd0", "libtinfo6",
    "libudev1", "libuuid1", "libzstd1", "login", "passwd", "procps", "sed", "util-linux", "zlib1g",
]
SERVICE = [
    "iputils-ping", "libatomic1", "libjemalloc2", "liblzf1", "libproc2-0", "libssl3", "libstdc++6", "redis-server",
    "redis-tools",
]
# fmt: on
NAME = "redis:7"
USER = 999
# What iputils-ping's own installation sets: cap_net_raw+ep, as the kernel stores it (linux/capability.h, version 2).
PING_CAPABILITY = (0x02000001).to_bytes(4, "little") + (1 << 13).to_bytes(4, "little") + bytes(12)

Member = tuple[tarfile.TarInfo, bytes]


def download(packages: Iterable[str], folder: Path) -> list[Path]:
    """The packages' files, in the order asked for; apt checks their signatures and hashes."""
    subprocess.run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *packages], cwd=folder, check=True)
    return [next(folder.glob(f"{package}_*.deb")) for package in packages]


def members(package: Path) -> Iterator[Member]:
    """Everything that a package installs."""
    packed = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        for info in tar:
            info.name = info.name.removeprefix("./").rstrip("/")
            if info.islnk():
                info.linkname = info.linkname.removeprefix("./")
            file = tar.extractfile(info) if info.isreg() else None
            if info.name not in ("", "."):
                yield info, file.read() if file else b""


def entry(name: str, data: bytes = b"", **fields: object) -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def folder(name: str, mode: int = 0o755, owner: int = 0) -> Member:
    return entry(name, type=tarfile.DIRTYPE, mode=mode, uid=owner, gid=owner)


def layer(contents: Iterable[Member]) -> bytes:
    """A layer's tar. Packages share directories; a layer names each once."""
    buffer = io.BytesIO()
    seen: set[str] = set()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in contents:
            if info.name not in seen:
                seen.add(info.name)
                info.uname = info.gname = ""
                tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def accounts(group: bool = False, *, service: bool = False) -> bytes:
    """/etc/passwd, or /etc/group."""
    groups = ["root:x:0:", "nogroup:x:65534:", f"redis:x:{USER}:"]
    users = ["root:x:0:0:root:/root:/bin/bash", "nobody:x:65534:65534::/:/bin/false", f"redis:x:{USER}:{USER}::/var/lib/redis:/bin/false"]
    lines = groups if group else users
    return "".join(f"{line}\n" for line in (lines if service else lines[:2])).encode()


def base_layer(packages: list[Path]) -> bytes:
    installed = [member for package in packages for member in members(package)]
    names = {info.name for info, _ in installed}
    own = [folder("etc"), entry("etc/passwd", accounts(), mode=0o644), entry("etc/group", accounts(group=True), mode=0o644)]
    if "bin/sh" not in names:
        own.append(entry("bin/sh", type=tarfile.SYMTYPE, linkname="dash", mode=0o777))
    return layer([*own, *installed])


def service_layer(packages: list[Path]) -> bytes:
    own = [entry("etc/passwd", accounts(service=True), mode=0o644), entry("etc/group", accounts(group=True, service=True), mode=0o644)]
    contents: list[Member] = [folder("etc"), *own]
    for package in packages:
        for info, data in members(package):
            if info.name in ("bin/ping", "usr/bin/ping"):
                info.pax_headers = {"SCHILY.xattr.security.capability": PING_CAPABILITY.decode("ascii")}
            contents.append((info, data))
    # What the package's own script does when it is installed.
    return layer([*contents, folder("var/lib/redis", 0o750, owner=USER), folder("var/log/redis", 0o750, owner=USER)])


def slim_layer() -> bytes:
    """Deletes documentation, empties a directory (opaque), and keeps one file of it in a new version."""
    return layer(
        [
            folder("usr"),
            folder("usr/share"),
            entry("usr/share/.wh.man"),
            entry("usr/share/.wh.locale"),
            folder("usr/share/doc"),
            entry("usr/share/doc/.wh..wh..opq"),
            entry("usr/share/doc/README", b"Documentation was removed from this image.\n", mode=0o644),
            folder("etc"),
            entry("etc/.wh.issue.net"),
        ]
    )


def application_layer() -> bytes:
    settings = b'bind 127.0.0.1\nport 6379\nsave ""\ndir /var/lib/redis\nlogfile ""\n'
    hello = b'#!/bin/sh\nredis-cli SET greeting "hello from the sealed store"\nredis-cli GET greeting\n'
    return layer(
        [
            folder("etc"),
            folder("etc/redis", mode=0o750, owner=USER),
            entry("etc/redis/redis.conf", settings, mode=0o640, uid=USER, gid=USER),
            folder("opt"),
            entry("opt/hello", hello, mode=0o755),
            entry("opt/hello-again", type=tarfile.LNKTYPE, linkname="opt/hello", mode=0o755),
        ]
    )


def platform() -> dict[str, str]:
    debian = subprocess.run(["dpkg", "--print-architecture"], stdout=subprocess.PIPE, check=True, text=True).stdout.strip()
    arm = {"armhf": {"architecture": "arm", "variant": "v7"}, "armel": {"architecture": "arm", "variant": "v5"}}
    return {"os": "linux", **arm.get(debian, {"architecture": {"i386": "386", "ppc64el": "ppc64le"}.get(debian, debian)})}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main(output: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        base = download(BASE, Path(temporary))
        service = download(SERVICE, Path(temporary))
        newest = max(info.mtime for package in base + service for info, _ in members(package))
        layers = [base_layer(base), service_layer(service), slim_layer(), application_layer()]
    config = {
        **platform(),
        "created": datetime.fromtimestamp(newest, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "config": {
            "User": "redis",
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["redis-server", "/etc/redis/redis.conf"],
            "WorkingDir": "/var/lib/redis",
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha256(one)}" for one in layers]},
    }
    raw = json.dumps(config, sort_keys=True).encode()
    manifest = [{"Config": f"{sha256(raw)}.json", "RepoTags": [NAME], "Layers": [f"{sha256(one)}.tar" for one in layers]}]
    with tarfile.open(output, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in [
            (f"{sha256(raw)}.json", raw),
            *((f"{sha256(one)}.tar", one) for one in layers),
            ("manifest.json", json.dumps(manifest).encode()),
        ]:
            info, data = entry(name, data, mode=0o644)
            tar.addfile(info, io.BytesIO(data))
    print(f"{output}: {NAME}, {len(layers)} layers, {sum(map(len, layers)) / 1e6:.0f} MB, image ID sha256:{sha256(raw)[:12]}…")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
