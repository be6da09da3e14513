"""Podman's ``/etc/containers/storage.conf``: what the store demands, with the manifest's ``engine-config`` and a base's own file.

Podman 4.3 and 5.4 read this one file; drop-ins below ``storage.conf.d`` came with 5.8 (tried with each).
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from shiplap.rootfs.target.settings import TargetRefused, TargetSettings

STORAGE_CONF = "etc/containers/storage.conf"
VENDOR_STORAGE_CONF = "usr/share/containers/storage.conf"
_RUNROOT = "/run/containers/storage"
_HEAD = "# Written by shiplap build; belongs to the store image of the same build.\n"
_STORES = "storage.options.additionalimagestores"


def storage_conf(settings: TargetSettings) -> bytes:
    """The file's bytes. Raises TargetRefused where ``engine-config`` is at odds with the store."""
    storage: dict[str, Any] = {"driver": settings.driver, "graphroot": settings.data_root.path}
    if settings.mode == "store":
        storage["options"] = {"additionalimagestores": [f"{settings.store_path}/store"]}
    merged = merge_tables(settings.engine_config, {"storage": storage}, "engine-config", "the store")
    merged["storage"].setdefault("runroot", _RUNROOT)
    return _HEAD.encode() + toml_text(merged).encode()


def merged_storage_conf(base: bytes, ours: bytes, is_vendor_s: bool) -> bytes:
    """A base's own file with the kit's. A vendor's, below /usr/share, has defaults, which give way.

    Raises TargetRefused for what is no TOML, and for a key that the two set to different values.
    """
    try:
        theirs = tomllib.loads(base.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TargetRefused(f"/{STORAGE_CONF} of the base is not TOML: {error}") from error
    kit = tomllib.loads(ours.decode("utf-8"))
    name = "the base root file system"
    return _HEAD.encode() + toml_text(merge_tables(theirs, kit, name, "the target kit", ours_win=is_vendor_s)).encode()


def merge_tables(
    base: Mapping[str, Any], ours: Mapping[str, Any], base_name: str, our_name: str, *, ours_win: bool = False, above: str = ""
) -> dict[str, Any]:
    """Both together, table by table; lists of stores one after the other. Raises TargetRefused for a key with two values."""
    merged = dict(base)
    for key, value in ours.items():
        path, said = f"{above}{key}", merged.get(key)
        if isinstance(value, Mapping) and isinstance(said, Mapping):
            value = merge_tables(said, value, base_name, our_name, ours_win=ours_win, above=f"{path}.")
        elif path == _STORES and isinstance(said, list):
            value = [*value, *(one for one in said if one not in value)]
        elif said is not None and said != value and not ours_win:
            theirs, needed = (json.dumps(one, default=str) for one in (said, value))
            raise TargetRefused(f"storage.conf: {base_name} sets {path} to {theirs}, {our_name} needs {needed}")
        merged[key] = value
    return merged


def toml_text(tables: Mapping[str, Any]) -> str:
    """TOML of strings, numbers, booleans, lists and tables, sorted. Raises TargetRefused for anything else."""
    return "".join(_table(tables, ()))


def _table(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    plain = {key: value for key, value in sorted(table.items()) if not isinstance(value, Mapping)}
    if path and (plain or not table):
        yield f"[{'.'.join(_key(one) for one in path)}]\n"
    for key, value in plain.items():
        yield f"{_key(key)} = {_value(value, (*path, key))}\n"
    for key, value in sorted(table.items()):
        if isinstance(value, Mapping):
            yield from _table(value, (*path, key))


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _string(key)


def _string(text: str) -> str:
    """JSON's escapes are TOML's, but for DEL, which TOML wants escaped, too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: object, path: tuple[str, ...]) -> str:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, list):
        return f"[{', '.join(_value(one, path) for one in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_key(key)} = {_value(one, (*path, key))}' for key, one in sorted(value.items()))}}}"
    raise TargetRefused(f"storage.conf: {'.'.join(path)} is {value!r:.80}, which the file cannot say")
