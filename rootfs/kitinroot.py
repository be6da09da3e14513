"""The target kit on its way into a root file system: what changes because the root is known now."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from shiplap.core.entries import Bytes, Entry
from shiplap.core.progress import Progress
from shiplap.rootfs.baseconfig import merged_with_base
from shiplap.rootfs.basetree import BaseTree
from shiplap.rootfs.squashfs.reader import SquashfsReader
from shiplap.rootfs.storefolder import KIT_CONF, StoreFolder, kit_conf, kit_entries
from shiplap.rootfs.target.canary import CANARY_NAME
from shiplap.rootfs.target.conf import conf_values, is_left_to_root, left_to_root

_CANARY = f"usr/lib/shiplap/{CANARY_NAME}".encode()


def is_sealed_by_root(store: StoreFolder, placement: str) -> bool:
    """Whether the store goes without dm-verity of its own (``seal: auto``), because it lies in a root that has it."""
    return placement == "file" and store.kit is not None and store.root_hash is not None and is_left_to_root(kit_conf(store.kit))


def put_kit(tree: BaseTree, store: StoreFolder, placement: str, stack: ExitStack, progress: Progress) -> None:
    """Every file of the store's kit, if it has one; contents are read while ``stack`` is open.

    Raises StoreFolderRefused, RootRefused and TargetRefused (configurations at odds).
    """
    if store.kit is None:
        return
    conf = conf_values(kit_conf(store.kit))
    for entry in stack.enter_context(kit_entries(store.kit)):
        if entry.path == KIT_CONF and is_sealed_by_root(store, placement):
            tree.put(replace(entry, content=Bytes(left_to_root(kit_conf(store.kit)))))
            progress.note("the store is sealed by the root file system around it, and not once more by itself (`seal: auto`)")
        elif entry.path == _CANARY and placement == "tree":
            _unpack_canary(tree, entry, stack)
        else:
            tree.put(merged_with_base(tree, entry, progress, conf))


def _unpack_canary(tree: BaseTree, entry: Entry, stack: ExitStack) -> None:
    """Beside a store that is unpacked: what is asked then is whether the root file system keeps attributes."""
    assert entry.content is not None
    image = Path(stack.enter_context(TemporaryDirectory(prefix="shiplap-canary-"))) / CANARY_NAME
    image.write_bytes(b"".join(entry.content.chunks()))
    reader = stack.enter_context(SquashfsReader.open(image))
    tree.graft(_CANARY.removesuffix(b".squashfs"), reader.entries())
