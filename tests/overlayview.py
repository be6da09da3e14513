"""What the kernel's overlayfs shows of layers, as facts; run as a program inside a private mount namespace, it prints them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from shiplap.core.entries import Bytes, Entry, Kind
from squashfsimages import Facts, expected_facts, facts_of_host_tree, lay_out


def nodes_as_facts(nodes: Iterable[tuple[Entry, bytes]]) -> list[Facts]:
    """The facts of nodes; further names of a file as hard links to the first. The root is left out: a container has its own."""
    entries = []
    for entry, first in nodes:
        if first != entry.path:
            entry = Entry(entry.path, Kind.HARDLINK, entry.mode, entry.uid, entry.gid, entry.mtime_epoch, link=first)
        if entry.path:
            entries.append(entry)
    return expected_facts(entries)


def overlay_facts(stacks: Sequence[Sequence[Iterable[Entry]]], scratch: Path) -> list[list[Facts]]:
    """What mounts of layers (in overlay form, base first) show, one for each stack; skips the test where none can be made."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount an overlayfs here")
    scratch.chmod(0o755)
    place = scratch / "overlay"
    place.mkdir()
    argv = ["unshare", "--mount", "--propagation", "private", sys.executable, __file__, str(place)]
    # A tmpfs keeps trusted attributes, whatever the scratch folder lies on; it is gone with the namespace.
    recipe = [[[_data(entry) for entry in layer] for layer in layers] for layers in stacks]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(argv, input=json.dumps(recipe).encode(), capture_output=True, check=False, env=env)
    if done.returncode == 77:
        pytest.skip(f"cannot mount here: {done.stderr.decode()}")
    assert done.returncode == 0, done.stderr.decode()
    return [[tuple(item) for item in view] for view in json.loads(done.stdout)]


def _data(entry: Entry) -> list[object]:
    content = None if entry.content is None else b"".join(entry.content.chunks()).hex()
    xattrs = [[name.hex(), value.hex()] for name, value in entry.xattrs]
    fields = [entry.path.hex(), entry.kind.value, entry.mode, entry.uid, entry.gid, entry.mtime_epoch]
    return [*fields, entry.link.hex(), list(entry.device), xattrs, content]


def _entry(data: list) -> Entry:  # type: ignore[type-arg]
    path, kind, mode, uid, gid, mtime, link, device, xattrs, content = data
    pairs = tuple((bytes.fromhex(name), bytes.fromhex(value)) for name, value in xattrs)
    held = None if content is None else Bytes(bytes.fromhex(content))
    return Entry(bytes.fromhex(path), Kind(kind), mode, uid, gid, mtime, 0, bytes.fromhex(link), (device[0], device[1]), pairs, held)


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, check=False)
    if done.returncode != 0:
        sys.stderr.buffer.write(done.stderr)
        sys.exit(77)


def _view(place: str, layers: list[list[list[object]]]) -> list[Facts]:
    os.mkdir(place)
    names = []
    for number, layer in enumerate(layers):
        lay_out(map(_entry, layer), os.fsencode(f"{place}/{number}"))
        names.append(f"{place}/{number}")
    for name in ("empty", "view"):
        os.mkdir(f"{place}/{name}")
    _mount("-t", "overlay", "-o", f"ro,lowerdir={':'.join([f'{place}/empty', *reversed(names)])}", "none", f"{place}/view")
    return [fact for fact in facts_of_host_tree(os.fsencode(f"{place}/view")) if fact[0]]


def _main(place: str) -> None:
    stacks = json.load(sys.stdin)
    _mount("-t", "tmpfs", "none", place)
    json.dump([_view(f"{place}/{number}", layers) for number, layers in enumerate(stacks)], sys.stdout)


if __name__ == "__main__":
    _main(sys.argv[1])
