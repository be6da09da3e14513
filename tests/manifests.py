"""Manifests for tests: one with every key of the design, and the smallest."""

from __future__ import annotations

from typing import Any

SMALLEST = b"version: 1\nimages:\n  - ref: app:1\n    from: docker-archive:app.tar\n"

DIGEST = "sha256:" + "0123456789abcdef" * 4


def whole() -> dict[str, Any]:
    """Every key of the design's section 5 (but `compose`, instead of `containers`), as data, with values that the schema accepts."""
    return {
        "version": 1,
        "name": "gateway",
        "platform": "linux/arm64/v8",
        "epoch": 1700000000,
        "security-version": 1,
        "images": [
            {
                "ref": "docker.io/library/redis:7",
                "from": "docker-archive:redis.tar",
                "digest": DIGEST,
                "config-digest": DIGEST,
                "license": "Apache-2.0",
                "allow-foreign-elf": ["/opt/x86-tool"],
                "allow-lost-xattrs": ["/bin/ping"],
            }
        ],
        "mode": "store",
        "engine": "docker",
        "driver": "overlay2",
        "outputs": ["squashfs", "verity"],
        "data-root": {"path": "/var/lib/docker", "persistence": "volatile", "size": "256M", "volumes-path": "/data/volumes"},
        "store-path": "/usr/share/shiplap",
        "placement": "file",
        "squashfs": {
            "tool": "builtin",
            "allow-tool": ["4.7.2"],
            "compression": "zstd",
            "level": 15,
            "block-size": "128K",
            "whiteouts": "overlay",
        },
        "erofs": {"compression": "lz4hc", "level": 12, "cluster-size": "64K"},
        "verity": {"hash": "sha256", "fec-roots": 0, "check": "lazy", "on-corruption": "eio", "seal": "auto"},
        "engine-config": {"log-driver": "local"},
        "archive": {"compression": "none", "level": 0},
        "budget": {"store-image": "200M"},
        "limits": {"layer-bytes": "16G", "entries": 2000000, "metadata-bytes": "4M"},
        "registries": {
            "127.0.0.1:5000": {"tls-verify": False, "cert-dir": "certs", "authfile": "auth.json", "mirrors": ["mirror.example.org/hub"]}
        },
        "target": {"init": ["systemd", "sysv", "procd"], "quadlet": False},
        "containers": [
            {
                "name": "cache",
                "image": "redis:7",
                "entrypoint": "/usr/bin/redis-server",
                "args": ["--save", "60"],
                "restart": "always",
                "network": "bridge",
                "ports": ["127.0.0.1:6379:6379/tcp"],
                "volumes": ["data:/data"],
                "env": {"A": "b", "N": 1},
                "env-file": "/data/cache.env",
                "user": "999",
                "cap-drop": ["ALL"],
                "cap-add": ["NET_BIND_SERVICE"],
                "security-opt": ["no-new-privileges"],
                "read-only": True,
                "tmpfs": ["/tmp"],
                "devices": ["/dev/ttyS0"],
                "memory": "64M",
                "cpus": 0.5,
                "pids-limit": 64,
                "labels": {"org.example.part": "cache"},
                "health": {"cmd": "redis-cli ping", "interval": "30s", "timeout": "5s", "retries": 3, "start-period": "1m30s"},
                "after": [],
                "wait-for": ["/data/ready"],
            }
        ],
    }


def buildable() -> dict[str, Any]:
    """The part of :func:`whole` that this release can build."""
    data = whole()
    data["squashfs"]["tool"] = "tar2sqfs"
    for key in ("data-root", "engine-config", "target", "containers"):
        del data[key]
    return data
