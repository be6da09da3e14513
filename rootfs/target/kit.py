"""``target.tar``: the target kit as a canonical tar, to be unpacked over a root file system."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources

from shiplap.core.entries import Bytes, Entry, Kind
from shiplap.core.tar.records import END_OF_ARCHIVE, write_entry
from shiplap.rootfs.target.canary import CANARY_NAME
from shiplap.rootfs.target.conf import container_file, daemon_json, images_list, labelled, store_conf
from shiplap.rootfs.target.initfiles import init_files, procd_links, systemd_links
from shiplap.rootfs.target.quadlet import FOLDER as QUADLET_FOLDER
from shiplap.rootfs.target.quadlet import quadlet_file, unit_name
from shiplap.rootfs.target.settings import TargetSettings
from shiplap.rootfs.target.storageconf import STORAGE_CONF, storage_conf

# Of the others each device has what its engine and driver need.
_ALWAYS = ("seed.sh", "engine.sh")
_ONLY = {"overlay2": ("references.sh", "overlay2.sh"), "vfs": ("references.sh", "vfs.sh"), "overlay": ("podman.sh",)}
# Podman 4 wants to write there; on a read-only root the kit covers them.
_PODMAN_FOLDERS = ("etc/cni/net.d", "etc/containers/networks")
# Words to a linter, which no device has; all other comments travel.
_DIRECTIVE = re.compile(rb"^[ \t]*# shellcheck .*\n", re.MULTILINE)


def target_files(settings: TargetSettings) -> dict[str, tuple[int, bytes]]:
    """Path in the root file system → (mode, content)."""
    files: dict[str, tuple[int, bytes]] = {}
    files["usr/sbin/shiplap-target"] = (0o755, _script("shiplap-target"))
    for name in (*_ALWAYS, *_ONLY.get(settings.driver, ())):
        files[f"usr/lib/shiplap/{name}"] = (0o644, _script(name))
    if settings.canary:
        files["usr/lib/shiplap/canary.sh"] = (0o644, _script("canary.sh"))
        files[f"usr/lib/shiplap/{CANARY_NAME}"] = (0o644, settings.canary)
    files["etc/shiplap/store.conf"] = (0o644, store_conf(settings))
    files["etc/shiplap/images"] = (0o644, images_list(settings))
    for number, container in enumerate(settings.containers):
        files[f"etc/shiplap/containers/{number:03d}-{container.name}"] = (0o644, container_file(container))
        if settings.quadlet:
            text = quadlet_file(container, labelled(container))
            files[f"{QUADLET_FOLDER}/{unit_name(container.name)}.container"] = (0o644, text)
    if settings.engine == "podman":
        files[STORAGE_CONF] = (0o644, storage_conf(settings))
    elif set(settings.init) != {"procd"}:  # OpenWrt's dockerd writes its own configuration from UCI
        files["etc/docker/daemon.json"] = (0o644, daemon_json(settings))
    files |= {path: (mode, text.encode()) for path, (mode, text) in init_files(settings).items()}
    return files


def _script(name: str) -> bytes:
    return _DIRECTIVE.sub(b"", (resources.files("shiplap.rootfs.target") / "files" / name).read_bytes())


def target_entries(settings: TargetSettings, epoch: int) -> Iterator[Entry]:
    """Everything of the kit, parents first; the mount point and the data-root are empty directories."""
    entries: dict[bytes, Entry] = {}
    podman_folders = _PODMAN_FOLDERS if settings.engine == "podman" else ()
    for folder in (f"{settings.store_path}/store", settings.data_root.path, *podman_folders):
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
