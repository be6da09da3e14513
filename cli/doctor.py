"""``shiplap doctor``: what is installed, in which version, and what to install.

It only looks. Every fault of a tool ends up in the table, never as an error of the doctor. With ``--kernel`` it also holds a device's
kernel against what a store needs.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from shiplap.cli.console import Console
from shiplap.cli.kernel import kernel_data, kernel_text, look_at_kernel
from shiplap.core import run as programs
from shiplap.core.errors import Refused, ShiplapError
from shiplap.core.record import ENGINE_RANGE

NAME = "doctor"
SUMMARY = "list the tools and libraries that are used, their versions, and what to install"
EXAMPLES = """
  shiplap doctor                      exit 0: the default build can run here; 3: something is missing
  shiplap doctor --target 24.0.7      does a store of this release suit Docker 24.0.7 on the device?
  shiplap doctor --target podman:5.4  the same of Podman
  shiplap doctor --kernel linux/.config --store shiplap-out     does this kernel have what that store needs?
  shiplap doctor --kernel running     the same of the kernel that runs here, for a default store
"""

_TITLES = {"docker": "Docker", "podman": "Podman"}
_TARGET = re.compile(r"(?:(docker|podman)[: /-]?)?v?(\d{1,4})(?:\.(\d{1,4}))?(?:\.(\d{1,4}))?(?:[-+~].{0,40})?", re.IGNORECASE)


class TargetInvalid(Refused):
    """``--target`` is no version of an engine."""


@dataclass(frozen=True, slots=True)
class Target:
    """The engine on the device. ``text``: its version as it was given; ``minor`` None: some release of ``major``."""

    engine: str
    text: str
    major: int
    minor: int | None

    @property
    def is_supported(self) -> bool:
        """Whether the tests of this release ran that version, or one around it."""
        oldest, newest = (tuple(map(int, ENGINE_RANGE[self.engine][end].split("."))) for end in ("oldest", "newest"))
        return (self.major, 9999 if self.minor is None else self.minor) >= oldest and (self.major, self.minor or 0)[: len(newest)] <= newest


@dataclass(frozen=True, slots=True)
class Tool:
    """Something the program may use. ``needed``: for the default build. ``package``: Debian's, empty if it is always there."""

    name: str
    purpose: str
    needed: bool
    package: str
    version: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Finding:
    """``version`` is None when the tool is missing; ``remark`` says what is wrong or special."""

    tool: Tool
    version: str | None
    remark: str = ""


def _program(name: str, package: str, option: str = "--version") -> Callable[[], str]:
    """The first thing that looks like a version in what a program says."""

    def version() -> str:
        done = programs.run([programs.find(name, package=package), option], allowed=range(256))
        match = re.search(r"\d+(?:\.\d+)+", (done.stdout + done.stderr).decode("utf-8", "replace"))
        return match[0] if match else "unknown version"

    return version


def _attribute(module: str, name: str) -> Callable[[], str]:
    """A version that is an attribute, or the result of a function, of a module."""

    def version() -> str:
        found = getattr(importlib.import_module(module), name)
        return str(found() if callable(found) else found)

    return version


def _linked(name: str) -> Callable[[], str]:
    """The version of libarchive, or of a library that it is linked with."""

    def version() -> str:
        versions: Mapping[str, str] = importlib.import_module("shiplap.core.libarchive").versions()
        return versions[name]

    return version


def _block_compressor(name: str) -> Callable[[], str]:
    """The version of the library that the builtin SquashFS writer calls."""

    def version() -> str:
        found: str = importlib.import_module("shiplap.rootfs.squashfs.compress").compressor(name, None, 131072).library
        return found.rpartition(" ")[2]

    return version


def _zstd() -> str:
    importlib.import_module("shiplap.core.zstd").decoders()
    return _block_compressor("zstd")()


def _debian(program: str, package: str, purpose: str, *, needed: bool = False, option: str = "--version") -> Tool:
    return Tool(program, purpose, needed, package, _program(program, package, option))


TOOLS = (
    Tool("Python", "runs shiplap", True, "python3", platform.python_version),
    Tool("PyYAML", "reads shiplap.yaml", True, "python3-yaml", _attribute("yaml", "__version__")),
    Tool("libarchive", "writes archives, with its binding libarchive-c", True, "libarchive13 python3-libarchive-c", _linked("libarchive")),
    Tool("zstd library", "compresses store.squashfs (the default), reads zstd layers", True, "libzstd1", _zstd),
    Tool("lz4 library", "compresses store.squashfs with lz4", False, "liblz4-1", _block_compressor("lz4")),
    _debian("tar2sqfs", "squashfs-tools-ng", "another writer of store.squashfs"),
    _debian("mksquashfs", "squashfs-tools", "another writer of store.squashfs", option="-version"),
    _debian("mkfs.erofs", "erofs-utils", "writes store.erofs"),
    Tool("CRC-64", "checksums of tar-split", False, "libssl3", _attribute("shiplap.core.layer.crc64", "backend")),
    _debian("veritysetup", "cryptsetup-bin", "opens sealed stores on the device; forward error correction"),
    Tool(
        "docker SDK",
        "reads images from engines that run (docker-daemon:, podman:)",
        False,
        "python3-docker",
        _attribute("docker", "__version__"),
    ),
    _debian("openssl", "openssl", "checks an image's signature by a key (lock --key)", option="version"),
    _debian("skopeo", "skopeo", "checks an image's signature by a policy (lock --policy)"),
)

# What the sink refuses (shiplap.rootfs.sinks.mksquashfs says why); a test holds the two alike.
_MKSQUASHFS_OLDEST = (4, 6)
_MKSQUASHFS_FAULTY = ((4, 7, 0), (4, 7, 5))
# The sink asks the tool itself (shiplap.rootfs.sinks.erofs); this is the first version that has what it asks for.
_MKFS_EROFS_OLDEST = (1, 8)


def configure(parser: argparse.ArgumentParser) -> None:
    """``--target [ENGINE:]VERSION``, ``--kernel CONFIG [--store OUT]``."""
    parser.add_argument(
        "--target",
        metavar="[ENGINE:]VERSION",
        help="version of Docker (or podman:VERSION) on the device, to compare with what this release supports",
    )
    parser.add_argument("--kernel", metavar="CONFIG", help="the .config of the device's kernel, or `running` for this system's")
    parser.add_argument(
        "--store", type=Path, metavar="OUT", help="with --kernel: the build whose store it has to serve (default: a default store)"
    )


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Look, print, and return 3 when the default build cannot run, 1 when the device's engine or kernel does not suit."""
    if arguments.store is not None and arguments.kernel is None:
        raise TargetInvalid("--store says what a kernel has to serve, and there is no --kernel")
    kernel = None if arguments.kernel is None else look_at_kernel(arguments.kernel, arguments.store)
    target = None if arguments.target is None else _target(arguments.target)
    findings = [look(tool) for tool in TOOLS]
    missing = [finding for finding in findings if finding.version is None and finding.tool.needed]
    packages = sorted({package for finding in findings if finding.version is None for package in finding.tool.package.split()})
    supported = target is None or target.is_supported
    data: dict[str, object] = {
        "ready": not missing,
        "tools": [
            {
                "name": one.tool.name,
                "purpose": one.tool.purpose,
                "needed": one.tool.needed,
                "version": one.version,
                "remark": one.remark or None,
                "package": one.tool.package,
            }
            for one in findings
        ],
        "install": packages,
        **ENGINE_RANGE,
        "target": None if target is None else {"engine": target.engine, "version": target.text, "supported": supported},
        "kernel": None if kernel is None else kernel_data(kernel),
    }
    text = _text(findings, packages, target)
    console.result(data, text if kernel is None else f"{text}\n\n{kernel_text(kernel)}")
    if missing:
        return 3
    return 0 if supported and (kernel is None or kernel.is_usable) else 1


def look(tool: Tool) -> Finding:
    """Find one tool; whatever goes wrong there is a remark."""
    try:
        version = tool.version()
    except (ShiplapError, ImportError, AttributeError, KeyError, OSError) as error:
        message = error.message if isinstance(error, ShiplapError) else str(error)
        said = message.splitlines()[0] if message else ""
        return Finding(tool, None, "" if said == f"{tool.name} is not installed" else said)
    return Finding(tool, version, _remark(tool.name, version))


def _remark(name: str, version: str) -> str:
    if name == "CRC-64":
        return "" if version == "libcrypto" else "slower; OpenSSL with GF(2^m) arithmetic makes it fast"
    numbers = tuple(map(int, re.findall(r"\d+", version)))
    if name == "mksquashfs" and numbers:
        if numbers < _MKSQUASHFS_OLDEST:
            return "too old: 4.6 or newer is needed"
        if _MKSQUASHFS_FAULTY[0] <= (*numbers, 0)[:3] <= _MKSQUASHFS_FAULTY[1]:
            return "known to be faulty; used only when squashfs.allow-tool names it"
    if name == "mkfs.erofs" and numbers and numbers < _MKFS_EROFS_OLDEST:
        return "too old: 1.8 or newer is needed"
    return ""


def _target(text: str) -> Target:
    match = _TARGET.fullmatch(text.strip())
    if match is None:
        raise TargetInvalid(
            f"--target {text!r} is not a version of Docker or Podman",
            hint="write what `docker version` shows, for example 24.0.7, or podman:5.4.2",
        )
    version = text.strip()[match.start(2) :]
    return Target((match[1] or "docker").lower(), version, int(match[2]), int(match[3]) if match[3] else None)


def _text(findings: list[Finding], packages: list[str], target: Target | None) -> str:
    rows = [(one.tool.name, one.version or "missing", "needed" if one.tool.needed else "optional", _explained(one)) for one in findings]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3]]) for row in rows]
    if packages:
        lines += ["", f"On Debian: apt-get install {' '.join(packages)}"]
    lines.append("")
    ready = not any(one.version is None and one.tool.needed for one in findings)
    lines.append("The default build can run here." if ready else "The default build cannot run here.")
    lines.append(_judgement(target))
    return "\n".join(lines)


def _judgement(target: Target | None) -> str:
    spans = {engine: f"{title} {ENGINE_RANGE[engine]['oldest']} to {ENGINE_RANGE[engine]['newest']}" for engine, title in _TITLES.items()}
    if target is None:
        return f"Stores of this release are tested with {' and '.join(spans.values())}."
    named, span = f"{_TITLES[target.engine]} {target.text}", spans[target.engine]
    if target.is_supported:
        return f"{named} on the device is in the tested range: {span}."
    if (target.engine, target.major) == ("docker", 29):
        return (
            f"{named} on the device is not tested by this release ({span}). It is said to stay on overlay2 where the data-root is a "
            "populated one of overlay2: try it, or use archive mode (mode: archive)."
        )
    return f"{named} on the device is outside the tested range, {span}: use archive mode (mode: archive)."


def _explained(finding: Finding) -> str:
    return f"{finding.tool.purpose}; {finding.remark}" if finding.remark else finding.tool.purpose
