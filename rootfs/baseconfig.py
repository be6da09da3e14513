"""Engines' configurations that both the base root file system and the target kit bring: one file with the keys of both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from shiplap.core.entries import Bytes, Entry
from shiplap.core.jsontext import parse_object
from shiplap.core.manifest.device import DATA_ROOT_KEYS, hidden_store_reasons
from shiplap.core.progress import Progress
from shiplap.rootfs.basetree import BaseTree
from shiplap.rootfs.target.conf import merge_config
from shiplap.rootfs.target.settings import TargetRefused
from shiplap.rootfs.target.storageconf import STORAGE_CONF, VENDOR_STORAGE_CONF, merged_storage_conf

_DAEMON_JSON = b"etc/docker/daemon.json"
_STORAGE_CONF, _VENDORS = STORAGE_CONF.encode(), VENDOR_STORAGE_CONF.encode()
_CONFIG_BYTES = 1 << 20


def merged_with_base(tree: BaseTree, entry: Entry, progress: Progress, conf: Mapping[str, str]) -> Entry:
    """``entry`` of the target kit, with the keys of the base's own file where it is an engine's configuration.

    ``conf``: the kit's ``store.conf``. Raises TargetRefused where the two want different things.
    """
    if entry.path not in (_DAEMON_JSON, _STORAGE_CONF):
        return entry
    source, theirs = entry.path, tree.content_of(entry.path, _CONFIG_BYTES)
    if theirs is None and source == _STORAGE_CONF:  # Podman would no longer read the vendor's, once this one is there
        source, theirs = _VENDORS, tree.content_of(_VENDORS, _CONFIG_BYTES)
    if theirs is None or not theirs.strip():
        return entry
    assert entry.content is not None
    ours = b"".join(entry.content.chunks())
    text = _daemon_json(theirs, ours, conf) if source == _DAEMON_JSON else merged_storage_conf(theirs, ours, source == _VENDORS)
    if source == entry.path:
        tree.remove(source)
    own = "own file" if source == entry.path else f"/{source.decode()}"
    progress.note(f"/{entry.path.decode()} has the keys of the base's {own} and the target kit's")
    return replace(entry, content=Bytes(text))


def _daemon_json(theirs: bytes, ours: bytes, conf: Mapping[str, str]) -> bytes:
    base = parse_object(theirs, what="/etc/docker/daemon.json of the base", limit_bytes=_CONFIG_BYTES)
    for keys, reason in hidden_store_reasons(base) if conf.get("MODE") == "store" else ():
        raise TargetRefused(
            f"daemon.json: the base root file system sets {'.'.join(keys)}; {reason}",
            hint="leave it out of the base, or use `mode: archive`",
        )
    kit = parse_object(ours, what="the target kit's daemon.json", limit_bytes=_CONFIG_BYTES)
    names = "the base root file system", "the target kit"
    for key in DATA_ROOT_KEYS:
        if key in base:  # the kit's file says nothing of the usual one, and prepares it all the same
            merge_config(base, {key: conf.get("DATA_ROOT", "")}, *names)
    merged = merge_config(base, kit, *names)
    return json.dumps(merged, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"
