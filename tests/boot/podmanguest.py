"""The base root file system of a test machine with Podman: BusyBox as init, this system's Podman, conmon and crun."""

from __future__ import annotations

from boot.guest import busybox_root

PROGRAMS = ("podman", "conmon", "crun")
_FILES = {
    "etc/containers/policy.json": b'{"default": [{"type": "insecureAcceptAnything"}]}\n',
    "etc/containers/registries.conf": b'unqualified-search-registries = ["docker.io"]\n',
    # No journal here.
    "etc/containers/containers.conf": b'[containers]\nlog_driver = "k8s-file"\n[engine]\nevents_logger = "file"\nruntime = "crun"\n',
}


def podman_root() -> bytes:
    return busybox_root(PROGRAMS, {name: (0o644, data) for name, data in _FILES.items()})
