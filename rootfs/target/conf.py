"""``/etc/shiplap``: what the scripts on the device read. Shell assignments and plain lines: no parser is needed there."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping

from shiplap.core.store.identity import canonical_json
from shiplap.rootfs.target.settings import Container, TargetRefused, TargetSettings

DEFINITION_LABEL = "io.shiplap.definition"
# The driver is decided at build time; an engine that was told another one would not see the store.
_OURS = {"storage-driver": "driver", "data-root": "data-root: {path: …}"}


def store_conf(settings: TargetSettings) -> bytes:
    """``store.conf``: ``KEY=value``, quoted for a POSIX shell."""
    data_root = settings.data_root
    values = {
        "FORMAT": "1",
        "MODE": settings.mode,
        "ENGINE": settings.engine,
        "DRIVER": settings.driver,
        "STORE_ID": settings.store_id,
        "STORE_PATH": settings.store_path,
        "IMAGE": settings.image,
        "VERITY": settings.tree,
        "ARCHIVE": settings.archive,
        "FILESYSTEM": settings.filesystem,
        "SEALED": "yes" if settings.root_hash else "no",
        "ROOT_HASH": settings.root_hash or "",
        "SEAL": settings.seal,
        "SHA256": settings.sha256,
        "IMAGE_BYTES": str(settings.image_bytes),
        "CHECK": settings.check,
        "ON_CORRUPTION": settings.on_corruption,
        "CANARY": "yes" if settings.canary else "no",
        "DATA_ROOT": data_root.path,
        "PERSISTENCE": data_root.persistence,
        "SIZE": data_root.size or "",
        "VOLUMES_PATH": data_root.volumes_path or "",
        "QUADLET": "yes" if settings.quadlet else "no",
        "TIMEOUT": str(settings.engine_timeout_seconds),
    }
    for key, value in values.items():
        if "\n" in value or "\0" in value:
            raise TargetRefused(f"{key} of the device's configuration cannot have a line break: {value!r:.80}")
    head = "# Written by shiplap build; belongs to the store image of the same build.\n"
    return (head + "".join(f"{key}={shlex.quote(value)}\n" for key, value in values.items())).encode()


def conf_values(conf: bytes) -> dict[str, str]:
    """The values of a ``store.conf`` that :func:`store_conf` has written. Raises TargetRefused for another."""
    pairs = (line.partition("=") for line in conf.decode("utf-8", "replace").splitlines() if not line.startswith("#"))
    try:
        return {key: "".join(shlex.split(value)) for key, _, value in pairs}
    except ValueError as error:
        raise TargetRefused(f"store.conf is none that shiplap has written: {error}", hint="build the store again") from error


def is_left_to_root(conf: bytes) -> bool:
    """Whether a store image inside a sealed root file system needs no sealing of its own: ``seal: auto``, and nothing else in the
    configuration (``check: full``, ``on-corruption``) asks for dm-verity.
    """
    values = conf_values(conf)
    wanted = {"SEAL": "auto", "SEALED": "yes", "CHECK": "lazy", "ON_CORRUPTION": "eio"}
    return all(values.get(key) == value for key, value in wanted.items())


def left_to_root(conf: bytes) -> bytes:
    """The same configuration for a store that is mounted as it is."""
    values = {b"SEALED": b"no", b"ROOT_HASH": b"''", b"VERITY": b"''"}
    lines = [(line, line.partition(b"=")[0]) for line in conf.splitlines(keepends=True)]
    return b"".join(key + b"=" + values[key] + b"\n" if key in values else line for line, key in lines)


def images_list(settings: TargetSettings) -> bytes:
    """A line ``CONFIG REFERENCE`` for each name of each image."""
    return "".join(f"{config} {reference}\n" for config, reference in sorted(settings.images)).encode()


def container_file(container: Container) -> bytes:
    """A container's definition as the scripts source it.

    ``DEFINITION`` is a hash of everything that the container is made of, and its label on the device: a container of
    another definition is made again.
    """
    words = ["--name", container.name, *labelled(container)]
    has_health = any(word.startswith("--health-cmd=") for word in container.options)
    lines = [
        f"CONTAINER={shlex.quote(container.name)}",
        f"IMAGE_ID={shlex.quote(container.image)}",
        f"IMAGE_NAME={shlex.quote(container.reference)}",
        f"DEFINITION={_definition(container)}",
        f"HEALTH={'yes' if has_health else 'no'}",
        # Split at spaces by the script; the manifest's checks allow plain paths only.
        f"WAIT_FOR={shlex.quote(' '.join(container.wait_for))}",
        f'create() {{ engine create {shlex.join(words)} "$1" {shlex.join(container.args)}; }}',
    ]
    return ("\n".join(lines) + "\n").encode()


def labelled(container: Container) -> list[str]:
    """The options of ``create`` with the definition as a label."""
    return ["--label", f"{DEFINITION_LABEL}={_definition(container)}", *container.options]


def _definition(container: Container) -> str:
    made_of = {"image": container.image, "options": container.options, "args": container.args}
    return hashlib.sha256(canonical_json(made_of)).hexdigest()


def daemon_json(settings: TargetSettings) -> bytes:
    """The engine's configuration: ``engine-config`` and what the store demands. Raises TargetRefused where the two are at odds."""
    ours = {"storage-driver": settings.driver}
    if settings.data_root.path != "/var/lib/docker":
        ours["data-root"] = settings.data_root.path
    merged = merge_config(settings.engine_config, ours, "engine-config", "the store")
    return json.dumps(merged, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def merge_config(base: Mapping[str, object], ours: Mapping[str, object], base_name: str, our_name: str) -> dict[str, object]:
    """Both together; raises TargetRefused for a key that the two set to different values."""
    merged = dict(base)
    for key, value in ours.items():
        if key in merged and merged[key] != value:
            key_hint = f"; it follows from `{_OURS[key]}`" if key in _OURS else ""
            raise TargetRefused(
                f"daemon.json: {base_name} sets {key} to {json.dumps(merged[key])}, {our_name} needs {json.dumps(value)}{key_hint}"
            )
        merged[key] = value
    return merged
