"""What the manifest says about the device: the engine's data-root, the init systems, the containers. Values only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from shiplap.core.reference import Reference

DEFAULT_DATA_ROOTS = {"docker": "/var/lib/docker", "podman": "/var/lib/containers/storage"}
DEFAULT_INIT = ("systemd", "sysv")
DATA_ROOT_KEYS = ("data-root", "graph")
"""In daemon.json; the second is the older name, which Docker 20.10 still reads."""


@dataclass(frozen=True, slots=True)
class DataRootSettings:
    """``persistence``: volatile or persistent, None where nothing was said, which means volatile.

    ``size_bytes``: of a volatile one's tmpfs, None for the kernel's half of memory. ``volumes_path``: where volumes
    live instead of in the data-root.
    """

    path: str = DEFAULT_DATA_ROOTS["docker"]
    persistence: str | None = None
    size_bytes: int | None = None
    volumes_path: str | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """``cmd`` runs in the container's shell, None: no health check, not even the image's. The times are in the engine's words (``30s``)."""

    cmd: str | None
    interval: str | None = None
    timeout: str | None = None
    retries: int | None = None
    start_period: str | None = None


@dataclass(frozen=True, slots=True)
class ContainerSettings:
    """A container that the device starts. The words are those of ``docker create``; ``env`` and ``labels`` in byte order of the names.

    ``entrypoint``: the program instead of the image's Entrypoint and Cmd.

    ``after``: containers that start first. ``wait_for``: paths that must exist first.
    """

    name: str
    image: Reference
    entrypoint: str | None = None
    args: tuple[str, ...] = ()
    restart: str | None = None
    network: str | None = None
    ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    env_file: str | None = None
    user: str | None = None
    cap_drop: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    read_only: bool = False
    tmpfs: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    memory_bytes: int | None = None
    cpus: str | None = None
    pids_limit: int | None = None
    labels: tuple[tuple[str, str], ...] = ()
    health: Health | None = None
    after: tuple[str, ...] = ()
    wait_for: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """``init``: init systems that get files. ``containers``: as written. ``engine_config``: a JSON object, for daemon.json or storage.conf.

    ``quadlet``: under systemd the containers are Quadlet's.
    """

    data_root: DataRootSettings = DataRootSettings()
    placement: str = "file"
    init: tuple[str, ...] = DEFAULT_INIT
    quadlet: bool = False
    containers: tuple[ContainerSettings, ...] = ()
    engine_config: str = "{}"


def kept_in_data_root(volume: str) -> bool:
    """Whether ``volume`` (a ``--volume`` argument) is data of its own, which the engine keeps: not a folder of the device."""
    source, separator, _ = volume.partition(":")
    return not (separator and source.startswith("/"))


def hidden_store_reasons(daemon_json: Mapping[str, object]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Options with which Docker would start, look elsewhere than into a store of layers, and list no image: (keys, reason).

    Seen with 20.10.24 and 26.1.5.
    """
    if daemon_json.get("userns-remap"):
        yield ("userns-remap",), "the engine uses a data-root of its own for shifted owners then, and sees nothing of a store"
    features = daemon_json.get("features")
    if isinstance(features, Mapping) and features.get("containerd-snapshotter") is True:
        yield ("features", "containerd-snapshotter"), "the engine uses containerd's image store then, and sees nothing of a store of layers"
