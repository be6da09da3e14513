"""dockerd on OpenWrt has its configuration from UCI: daemon.json's keys in UCI's words, and the script that sets them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping

from shiplap.adapters.config import AdapterConfig
from shiplap.adapters.template import fill, read_template

# daemon.json → (UCI option of dockerd.globals, kind). From the init script of the package dockerd.
_OPTIONS = {
    "bip": ("bip", "text"),
    "data-root": ("data_root", "text"),
    "dns": ("dns", "list"),
    "fixed-cidr": ("fixed_cidr", "text"),
    "fixed-cidr-v6": ("fixed_cidr_v6", "text"),
    "hosts": ("hosts", "list"),
    "ip": ("ip", "text"),
    "ip6tables": ("ip6tables", "flag"),
    "iptables": ("iptables", "flag"),
    "ipv6": ("ipv6", "flag"),
    "log-driver": ("log_driver", "text"),
    "log-level": ("log_level", "text"),
    "registry-mirrors": ("registry_mirrors", "list"),
    "storage-driver": ("storage_driver", "text"),
}
# What the package itself writes into /etc/config/dockerd: nobody's choice.
_UPSTREAM = ("/opt/docker", "/opt/docker/", "warn")


def unknown_keys(engine_config: Mapping[str, object]) -> list[str]:
    """Keys for which dockerd's UCI configuration has no option, or none for such a value; sorted."""
    return sorted(key for key, value in engine_config.items() if key not in _OPTIONS or not _fits(_OPTIONS[key][1], value))


def defaults_script(config: AdapterConfig) -> str:
    """``/etc/uci-defaults/50-<name>``: it must end with 0, or it runs again at each boot."""
    if config.manifest.engine != "docker":
        return fill(read_template("openwrt", "defaults.podman"), {"NAME": config.name})
    engine_config = json.loads(config.manifest.device.engine_config)
    engine_config.pop("data-root", None)
    if config.manifest.driver != "overlay2" and config.manifest.mode == "store":
        engine_config["storage-driver"] = config.manifest.driver
    values = {
        "NAME": config.name,
        "DATA_ROOT": config.manifest.device.data_root.path,
        "UPSTREAM": " | ".join(_UPSTREAM),
        "OPTIONS": "".join(_lines(key, value) for key, value in sorted(engine_config.items())),
    }
    return fill(read_template("openwrt", "defaults.docker"), values)


def _fits(kind: str, value: object) -> bool:
    if kind == "list":
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    return isinstance(value, bool) if kind == "flag" else isinstance(value, str)


def _lines(key: str, value: object) -> str:
    option, kind = _OPTIONS[key]
    if isinstance(value, list):
        adds = "".join(f"\t\tuci -q add_list {shlex.quote(f'dockerd.globals.{option}={one}')}\n" for one in value)
        return f"\tuci -q get dockerd.globals.{option} >/dev/null || {{\n{adds}\t}}\n"
    text = str(int(bool(value))) if kind == "flag" else str(value)
    return f"\tset_option {option} {shlex.quote(text)}\n"
