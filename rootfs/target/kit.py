"""``target.tar``: the target kit as a canonical tar, to be unpacked over a root file system."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources

from shiplap.core.entries import Bytes, Entry, Kind
from shiplap.core.tar.records import END_OF_ARCHIVE, write_entry
from shiplap.rootfs.target.conf import container_file, daemon_json, images_list, store_conf
from shiplap.rootfs.target.initfiles import init_files, procd_links, systemd_links
from shiplap.rootfs.target.settings import TargetSettings

_SCRIPTS = {
    "shiplap-target": ("usr/sbin/shiplap-target", 0o755),
    "seed.sh": ("usr/lib/shiplap/seed.sh", 0o644),
    "stale.sh": ("usr/lib/shiplap/stale.sh", 0o644),
    "engine.sh": ("usr/lib/shiplap/engine.sh", 0o644),
}


def target_files(settings: TargetSettings) -> dict[str, tuple[int, bytes]]:
    """Path in the root file system → (mode, content)."""
    files: dict[str, tuple[int, bytes]] = {}
    source = resources.files("shiplap.rootfs.target") / "files"
    for name, (path, mode) in _SCRIPTS.items():
        files[path] = (mode, (source / name).read_bytes())
    files["etc/shiplap/store.conf"] = (0o644, store_conf(settings))
    files["etc/shiplap/images"] = (0o644, images_list(settings))
    for number, container in enumerate(settings.containers):
        files[f"etc/shiplap/containers/{number:03d}-{container.name}"] = (0o644, container_file(container))
    # OpenWrt's dockerd writes its own configuration from UCI.
    if settings.engine == "docker" and set(settings.init) != {"procd"}:
        files["etc/docker/daemon.json"] = (0o644, daemon_json(settings))
    files |= {path: (mode, text.encode()) for path, (mode, text) in init_files(settings).items()}
    return files


def target_entries(settings: TargetSettings, epoch: int) -> Iterator[Entry]:
    """Everything of the kit, parents first; the mount point and the data-root are empty directories."""
    entries: dict[bytes, Entry] = {}
    for folder in (f"{settings.store_path}/store", settings.data_root.path):
        _folders(entries, folder.strip("/").encode() + b"/", epoch)
    for name, (mode, content) in target_files(settings).items():
        path = name.encode()
        _folders(entries, path, epoch)
        entries[path] = Entry(path, Kind.REGULAR, mode, mtime_epoch=epoch, content=Bytes(content))
    for name, target in (systemd_links(settings) | procd_links(settings)).items():
        path = name.encode()
        _folders(entries, path, epoch)
        entries[path] = Entry(path, Kind.SYMLINK, 0o777, mtime_epoch=epoch, link=target.encode())
    for path in sorted(entries, key=lambda one: one.split(b"/")):
        yield entries[path]


def _folders(entries: dict[bytes, Entry], path: bytes, epoch: int) -> None:
    parts = path.split(b"/")[:-1]
    for depth in range(1, len(parts) + 1):
        folder = b"/".join(parts[:depth])
        entries.setdefault(folder, Entry(folder, Kind.DIRECTORY, 0o755, mtime_epoch=epoch))


def target_tar(settings: TargetSettings, epoch: int) -> bytes:
    """The bytes of ``target.tar``; small, so in memory."""
    pieces: list[bytes] = []
    for entry in target_entries(settings, epoch):
        write_entry(entry, pieces.append)
    return b"".join(pieces) + END_OF_ARCHIVE
