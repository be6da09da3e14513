"""``data-root``, ``placement``, ``target``, ``containers`` and ``engine-config`` of the manifest's data ↔ :class:`DeviceSettings`."""

from __future__ import annotations

import json
from typing import Any

from shiplap.core.manifest.device import DEFAULT_DATA_ROOTS, DEFAULT_INIT, ContainerSettings, DataRootSettings, DeviceSettings, Health
from shiplap.core.manifest.sizes import format_size, parse_size
from shiplap.core.reference import parse_reference

Data = dict[str, Any]

_LISTS = ("args", "ports", "volumes", "cap-drop", "cap-add", "security-opt", "tmpfs", "devices", "after", "wait-for")
_TEXTS = ("entrypoint", "restart", "network", "env-file", "user")


def device_settings(data: Data) -> DeviceSettings:
    """From data that the schema and the checks have passed."""
    root = data["data-root"]
    return DeviceSettings(
        data_root=DataRootSettings(_path(data), root.get("persistence"), _size(root.get("size")), root.get("volumes-path")),
        placement=data["placement"],
        init=tuple(data["target"].get("init", DEFAULT_INIT)),
        quadlet=data["target"].get("quadlet", False),
        containers=tuple(_container(one) for one in data["containers"]),
        engine_config=json.dumps(data["engine-config"], sort_keys=True),
    )


def _path(data: Data) -> str:
    path: str = data["data-root"].get("path", DEFAULT_DATA_ROOTS[data["engine"]])
    return path


def _container(one: Data) -> ContainerSettings:
    plain: Data = {key.replace("-", "_"): tuple(one.get(key, ())) for key in _LISTS}
    plain |= {key.replace("-", "_"): one.get(key) for key in _TEXTS}
    return ContainerSettings(
        name=one["name"],
        image=parse_reference(one["image"]),
        env=_pairs(one.get("env", {})),
        labels=_pairs(one.get("labels", {})),
        read_only=one.get("read-only", False),
        memory_bytes=_size(one.get("memory")),
        cpus=None if one.get("cpus") is None else number_text(one["cpus"]),
        pids_limit=None if one.get("pids-limit") is None else int(one["pids-limit"]),
        health=_health(one["health"]) if "health" in one else None,
        **plain,
    )


def _pairs(data: Data) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, number_text(value)) for name, value in data.items()))


def _health(data: Data) -> Health:
    retries = data.get("retries")
    return Health(
        data.get("cmd"), data.get("interval"), data.get("timeout"), None if retries is None else int(retries), data.get("start-period")
    )


def _size(value: int | float | str | None) -> int | None:
    if value is None:
        return None
    return parse_size(int(value) if isinstance(value, float) else value)


def number_text(value: str | int | float) -> str:
    """As it was meant: 1.0 is 1, and 0.5 has no exponent."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else f"{value:.9f}".rstrip("0")
    return str(value)


def device_data(device: DeviceSettings) -> Data:
    """The same in the manifest's keys; None where a key is absent."""
    root = device.data_root
    return {
        "data-root": {
            "path": root.path,
            "persistence": root.persistence,
            "size": root.size_bytes and format_size(root.size_bytes),
            "volumes-path": root.volumes_path,
        },
        "placement": device.placement,
        "engine-config": json.loads(device.engine_config),
        "target": {"init": list(device.init), "quadlet": device.quadlet},
        "containers": [_container_data(one) for one in device.containers],
    }


def _container_data(one: ContainerSettings) -> Data:
    data: Data = {"name": one.name, "image": str(one.image)}
    data |= {key: getattr(one, key.replace("-", "_")) for key in _TEXTS}
    data |= {key: list(getattr(one, key.replace("-", "_"))) for key in _LISTS}
    data |= {"env": dict(one.env), "labels": dict(one.labels), "read-only": one.read_only, "pids-limit": one.pids_limit}
    data["memory"] = one.memory_bytes and format_size(one.memory_bytes)
    data["cpus"] = None if one.cpus is None else float(one.cpus)
    if one.health is not None:
        health = one.health
        data["health"] = {
            "disable": True if health.cmd is None else None, "cmd": health.cmd, "interval": health.interval, "timeout": health.timeout,
            "retries": health.retries, "start-period": health.start_period,
        }  # fmt: skip
    return data
