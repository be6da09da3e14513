"""The base root file system of a test machine with Podman: BusyBox as init, the system's Podman, conmon and crun."""

from __future__ import annotations

from boot.guest import busybox_root
from systems import HERE, System

PROGRAMS = ("podman", "conmon", "crun")
_FILES = {
    "etc/containers/policy.json": b'{"default": [{"type": "insecureAcceptAnything"}]}\n',
    "etc/containers/registries.conf": b'unqualified-search-registries = ["docker.io"]\n',
    # No journal here.
    "etc/containers/containers.conf": b'[containers]\nlog_driver = "k8s-file"\n[engine]\nevents_logger = "file"\nruntime = "crun"\n',
}


def podman_root(system: System = HERE) -> bytes:
    return busybox_root(PROGRAMS, {name: (0o644, data) for name, data in _FILES.items()}, system)
