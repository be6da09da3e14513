"""``shiplap generate``: the files with which Yocto, Buildroot or OpenWrt embed the manifest's images."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol, cast

from shiplap.adapters.bundle import write_bundle
from shiplap.adapters.config import AdapterConfig
from shiplap.adapters.generated import NEW_SUFFIX, TreeReport, Writer, write_tree
from shiplap.adapters.preparing import DEFAULT_MAINTAINER, Wishes, prepare
from shiplap.adapters.sourcearchive import write_source_archive
from shiplap.cli.console import Console
from shiplap.cli.quantities import count_text
from shiplap.core.lock.agreement import require_agreement
from shiplap.core.lock.document import load_lock, lock_path
from shiplap.core.manifest import DEFAULT_NAME, load_manifest

NAME = "generate"
SUMMARY = "write the files with which Yocto, Buildroot or OpenWrt embed the images"
EXAMPLES = """\
shiplap generate yocto -o meta-gateway                          a layer; bitbake fetches the locked blobs and builds the store
shiplap generate buildroot -o gateway-external                  a BR2_EXTERNAL tree
shiplap generate openwrt --prebuilt shiplap-out -o gateway-feed a feed around a finished build
shiplap generate buildroot --prebuilt shiplap-out --prebuilt-url https://downloads.example.com/gateway-1.4.tar -o gateway-external
"""
SYSTEMS = ("yocto", "buildroot", "openwrt")
PUBLISH = "publish"
"""Folder of the tree for a bundle that the build system will fetch from elsewhere."""


class Adapter(Protocol):
    """What the package of a build system offers; all of it is pure."""

    def render(self, config: AdapterConfig) -> Mapping[str, str]:
        """Path in the tree → text."""

    def carried(self, config: AdapterConfig) -> Mapping[str, str]:
        """Path in the tree → ``host-tool`` or ``prebuilt``: files that are no text."""

    def next_steps(self, config: AdapterConfig) -> str:
        """What its user does next."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The build system, what to generate from, and where to."""
    parser.add_argument("system", choices=SYSTEMS, help="the build system")
    parser.add_argument("-f", "--file", metavar="FILE", default=DEFAULT_NAME, help="the manifest (default %(default)s)")
    parser.add_argument("--lock", metavar="LOCK", help="the lock (default: beside the manifest, shiplap.lock.yaml)")
    parser.add_argument("-o", "--out", metavar="DIR", required=True, help="the folder to write to; what you edited in it is kept")
    parser.add_argument("--package-version", metavar="VERSION", help="of the generated package (default: the date of the lock's epoch)")
    parser.add_argument(
        "--maintainer", metavar="NAME", default=DEFAULT_MAINTAINER, help="`Name <address>`, for the systems that ask for it"
    )
    parser.add_argument("--prebuilt", metavar="OUT", help="embed this finished build; the build system then needs no shiplap")
    parser.add_argument("--prebuilt-url", metavar="URL", help="fetch its archive from there, instead of carrying it in the tree")
    parser.add_argument("--tool-url", metavar="URL", help="fetch shiplap's own source from there, instead of carrying it in the tree")
    parser.add_argument("--force", action="store_true", help="replace files that were edited, too")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Generate, and say what became of every file."""
    path = Path(arguments.file)
    manifest = load_manifest(path)
    pinned = Path(arguments.lock) if arguments.lock else lock_path(path)
    lock = load_lock(pinned)
    # What is generated builds with --locked, far from here.
    require_agreement(manifest, lock, str(pinned))
    prebuilt = Path(arguments.prebuilt) if arguments.prebuilt else None
    wishes = Wishes(arguments.package_version, arguments.maintainer, prebuilt, arguments.prebuilt_url, arguments.tool_url)
    with console.progress.task("reading") as task:
        config = prepare(manifest, lock, wishes, task.advance)
    adapter = cast(Adapter, importlib.import_module(f"shiplap.adapters.{arguments.system}"))
    report = write_tree(Path(arguments.out), adapter.render(config), _carried(adapter, config, prebuilt), force=arguments.force)
    for kept in report.kept:
        console.note(f"{kept} was edited and stays; what would be written now is in {kept}{NEW_SUFFIX}")
    for left in report.left:
        console.note(f"{left} is no longer generated; it was edited and stays")
    console.result(_result(arguments, config, report), _text(arguments, report, adapter.next_steps(config)))
    return 0


def _carried(adapter: Adapter, config: AdapterConfig, prebuilt: Path | None) -> dict[str, Writer]:
    contents: dict[str, Writer] = {"host-tool": write_source_archive}
    if prebuilt is not None and config.prebuilt is not None:
        contents["prebuilt"] = partial(_bundle, prebuilt, config)
    carried = {path: contents[key] for path, key in adapter.carried(config).items()}
    if config.prebuilt is not None and config.prebuilt.url is not None:
        carried[f"{PUBLISH}/{config.prebuilt.file_name}"] = contents["prebuilt"]
    return carried


def _bundle(out: Path, config: AdapterConfig, write: Callable[[bytes], object]) -> None:
    assert config.prebuilt is not None
    write_bundle(out, config.prebuilt.files, f"{config.name}-{config.version}", config.epoch, write)


def _result(arguments: argparse.Namespace, config: AdapterConfig, report: TreeReport) -> dict[str, object]:
    return {
        "system": arguments.system,
        "out": arguments.out,
        "name": config.name,
        "version": config.version,
        "prebuilt": config.prebuilt is not None,
        "written": list(report.written),
        "unchanged": list(report.unchanged),
        "kept": list(report.kept),
        "left": list(report.left),
        "removed": list(report.removed),
    }


def _text(arguments: argparse.Namespace, report: TreeReport, steps: str) -> str:
    counts = [
        f"{count_text(len(paths), 'file')} {what}"
        for what, paths in (
            ("written", report.written),
            ("unchanged", report.unchanged),
            ("removed", report.removed),
            ("kept", report.kept),
            ("left", report.left),
        )
        if paths
    ]
    return f"{arguments.out}: {', '.join(counts)}\n\n{steps.rstrip()}"
