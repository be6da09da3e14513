"""shiplap's own source as one archive, from the running installation: what a build system makes its host tool of.

The generated tree is whole without a network, and has exactly the shiplap that wrote it. Not compressed: the bytes of a
compressor depend on its build, and this archive's sha256 stands in recipes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from importlib import import_module, resources
from importlib.resources.abc import Traversable

from shiplap.adapters.config import HostTool
from shiplap.core.entries import Bytes, Entry, Kind
from shiplap.core.tar.records import END_OF_ARCHIVE, write_entry
from shiplap.core.version import VERSION

FOLDERS = ("adapters", "audit", "cli", "core", "rootfs", "verity")
# What an editor, an interpreter or a patch leaves behind.
_NOT_OURS = ("~", ".pyc", ".pyo", ".orig", ".rej", ".swp")
_EPOCH = 315532800  # 1980-01-01: the oldest time that zip, and so a wheel, can hold


def host_tool(url: str | None = None) -> HostTool:
    """Name, size and sha256 of the archive that :func:`write_source_archive` writes."""
    hasher = hashlib.sha256()
    size_bytes = 0

    def take(piece: bytes) -> None:
        nonlocal size_bytes
        hasher.update(piece)
        size_bytes += len(piece)

    write_source_archive(take)
    return HostTool(VERSION, f"shiplap-{VERSION}.tar", hasher.hexdigest(), size_bytes, url)


def write_source_archive(write: Callable[[bytes], object]) -> None:
    """Call ``write`` with the archive's pieces: a canonical tar of ``shiplap-<version>/``, as a source distribution has it."""
    top = f"shiplap-{VERSION}"
    files = {f"{top}/{name}": data for name, data in _files()}
    folders = sorted({name[:at] for name in files for at, letter in enumerate(name) if letter == "/"})
    entries = [Entry(name.encode(), Kind.DIRECTORY, 0o755, mtime_epoch=_EPOCH) for name in folders]
    entries += [Entry(name.encode(), Kind.REGULAR, 0o644, mtime_epoch=_EPOCH, content=Bytes(data)) for name, data in files.items()]
    for entry in sorted(entries, key=lambda one: one.path.split(b"/")):
        write_entry(entry, write)
    write(END_OF_ARCHIVE)


def _files() -> Iterator[tuple[str, bytes]]:
    packaging = resources.files("shiplap.adapters") / "packaging"
    for name in ("LICENSE", "README.md"):
        yield name, (packaging / name).read_bytes()
    yield "pyproject.toml", (packaging / "pyproject.toml.in").read_bytes().replace(b"@VERSION@", VERSION.encode())
    yield "PKG-INFO", f"Metadata-Version: 2.1\nName: shiplap\nVersion: {VERSION}\n".encode()
    for folder in FOLDERS:
        import_module(f"shiplap.{folder}")
        yield from _tree(resources.files(f"shiplap.{folder}"), folder)


def _tree(folder: Traversable, path: str) -> Iterator[tuple[str, bytes]]:
    for item in sorted(folder.iterdir(), key=lambda one: one.name):
        if item.name.startswith(".") or item.name == "__pycache__" or item.name.endswith(_NOT_OURS):
            continue
        if item.is_dir():
            yield from _tree(item, f"{path}/{item.name}")
        else:
            yield f"{path}/{item.name}", item.read_bytes()
