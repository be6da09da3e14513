"""A small image that really runs: programs of this machine with their libraries, in layers that use what layers can do."""

from __future__ import annotations

from archives import ImageSpec
from images import CAPABILITY, X, directory, file, hardlink, symlink
from layertar import TarItem, build
from systems import HERE, System

PROGRAMS = ("sh", "cat", "id", "ls", "stat", "sleep")
CAPABILITY_BIT = 1 << 10  # cap_net_bind_service, what CAPABILITY holds


def programs_layer(system: System = HERE) -> bytes:
    """/bin with PROGRAMS, every library where the loader looks for it, users, and things for later layers to change."""
    executables = {program: system.program(program) for program in PROGRAMS}
    libraries = {name: path for program in executables.values() for name, path in system.libraries(program).items()}
    items: list[TarItem] = [directory("bin")]
    items += [file(f"bin/{name}", path.read_bytes(), mode=0o755) for name, path in executables.items()]
    items += [file(name[1:], path.read_bytes(), mode=0o755) for name, path in sorted(libraries.items())]
    items += [
        directory("etc"),
        file("etc/passwd", b"root:x:0:0::/:/bin/sh\nsvc:x:999:999::/srv:/bin/sh\n"),
        file("etc/group", b"root:x:0:\nsvc:x:999:\n"),
        directory("data"),
        file("data/keep", b"kept\n"),
        file("data/gone", b"not to be seen\n"),
        directory("opaque"),
        file("opaque/old", b"old\n"),
        directory("tmp", mode=0o1777),
    ]
    return build(items)


def changes_layer(system: System = HERE) -> bytes:
    """Deletions, an opaque directory, a setuid program, a file capability, hard links, a service's own directory."""
    identify, show = system.program("id").read_bytes(), system.program("cat").read_bytes()
    return build(
        [
            directory("data"),
            file("data/.wh.gone"),
            directory("opaque"),
            file("opaque/.wh..wh..opq"),
            file("opaque/new", b"new\n"),
            directory("bin"),
            file("bin/suid-id", identify, mode=0o4755),
            file("bin/cap-cat", show, mode=0o755, pax={X + "security.capability": CAPABILITY}),
            hardlink("data/linked", "bin/suid-id", mode=0o4755),
            directory("srv", mode=0o750, uid=999, gid=999),
            file("srv/owned", b"mine\n", mode=0o600, uid=999, gid=999, mtime=1_500_000_000),
            symlink("srv/link", "owned", uid=999, gid=999),
        ]
    )


def top_layer() -> bytes:
    return build([file("srv/.wh.link"), file("srv/top", b"top\n", uid=999, gid=999)])


CHECK = """
set -e
id -u; id -g
cat /data/keep /srv/owned /srv/top
ls /data /opaque /srv
suid-id -u
cap-cat /proc/self/status
stat -c '%a %u:%g %Y %h' /srv/owned /data/linked
"""


def expected_lines() -> set[str]:
    """Lines that CHECK prints, run by user 999."""
    return {
        "999",
        "0",
        "kept",
        "mine",
        "top",
        "keep",
        "linked",
        "new",
        "owned",
        "600 999:999 1500000000 1",
        f"CapEff:\t{CAPABILITY_BIT:016x}",
    }


def hidden_lines() -> set[str]:
    """Names that later layers took away."""
    return {"gone", "old", "link"}


def image(*tags: str, extra: bytes | None = None, system: System = HERE, platform: str = "linux/amd64") -> ImageSpec:
    """Three layers (four with ``extra`` on top), running as user 999."""
    layers = [programs_layer(system), changes_layer(system), top_layer()]
    return ImageSpec(
        [*layers, extra] if extra is not None else layers,
        tags,
        platform,
        config={"config": {"Cmd": ["/bin/sh", "-c", CHECK], "Env": ["PATH=/bin"], "User": "999:999", "WorkingDir": "/"}},
    )
