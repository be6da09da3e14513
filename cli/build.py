"""``shiplap build``: images → everything in the output folder."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from shiplap.cli.access import access_of, add_access_options
from shiplap.cli.artifacts import ArtifactBuild, Finished
from shiplap.cli.console import Console
from shiplap.cli.limits import add_limit_option, limits_of
from shiplap.cli.optionvalues import epoch, jobs
from shiplap.cli.quantities import count_text, size_text
from shiplap.core.collect import RequestRefused, collected_images, parse_argument
from shiplap.core.lock import Lock
from shiplap.core.lock.agreement import disagreements, require_agreement
from shiplap.core.lock.document import load_lock, lock_path
from shiplap.core.manifest import DEFAULT_NAME, ImageRequest, Manifest, Overrides, defaults, load_manifest, resolve
from shiplap.core.output import staged_output
from shiplap.core.reference import parse_reference
from shiplap.core.sources import parse_source
from shiplap.core.sources.spec import FILE_TRANSPORTS
from shiplap.core.store.model import StoredImage

NAME = "build"
SUMMARY = "images → one deterministic, sealed store (or archive) in the output folder"
EXAMPLES = """\
shiplap build app:1=docker-archive:app.tar             one image from a `docker save` file, named app:1 on the device
shiplap build oci:layout:app oci:layout:db -o OUT      two images of an OCI layout under their own names
shiplap build --locked --offline                       what the manifest lists, exactly as the lock pins it, without network
shiplap build --engine podman docker-archive:app.tar   a read-only image store for Podman's additionalimagestores
shiplap build --mode archive docker-archive:app.tar    a `docker load`-able archive instead of a store
shiplap build --output tar app:1=oci-archive:app.tar   the data-root as a tar, for build systems that unpack it
"""
DEFAULT_OUT = "shiplap-out"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources", nargs="*", metavar="[NAME=]SOURCE", help="an image: a name in a registry, docker-archive:FILE[:REF], oci:DIR[:REF], …"
    )
    parser.add_argument("-f", "--file", metavar="FILE", help=f"the manifest (default {DEFAULT_NAME}, when no SOURCE is given)")
    parser.add_argument("-o", "--out", metavar="OUT", default=DEFAULT_OUT, help="the output folder (default %(default)s)")
    parser.add_argument("--offline", action="store_true", help="use the cache and files only, no network and no engine")
    parser.add_argument("--locked", action="store_true", help="refuse what the lock does not pin, or (with SOURCE) no digest pins")
    parser.add_argument("--lock", metavar="LOCK", help="the lock (default: the one beside the manifest, when there is one)")
    parser.add_argument("--mode", choices=("store", "archive"), help="a ready store (default), or an archive that is loaded at boot")
    parser.add_argument("--engine", metavar="ENGINE", help="the engine on the device: docker (default), podman")
    parser.add_argument("--driver", metavar="DRIVER", help="its storage driver: overlay2 (default), vfs; podman: overlay")
    parser.add_argument("--platform", metavar="OS/ARCH[/VARIANT]", help="the device's platform, where a source has several")
    parser.add_argument("--output", action="append", metavar="A,B", help="what to write: squashfs,verity (default), erofs, tar; repeatable")
    parser.add_argument("--store-path", metavar="PATH", help="where the device finds the store (default /usr/share/shiplap)")
    parser.add_argument("--placement", choices=("file", "partition", "tree"), help="how it lies there, for the target kit (default file)")
    parser.add_argument("--source-date-epoch", type=epoch, metavar="N", help="the time of everything that shiplap itself writes")
    parser.add_argument("--jobs", "-j", type=jobs, metavar="N", help="processors to use (default all); changes no byte")
    parser.add_argument(
        "--allow-foreign-elf",
        action="append",
        default=[],
        metavar="PATH",
        help="a path or folder of programs for another platform; repeatable",
    )
    parser.add_argument("--no-sbom", action="store_true", help="write no sbom.spdx.json and sbom.cdx.json")
    add_limit_option(parser)
    add_access_options(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    manifest = resolve(_manifest(arguments), _overrides(arguments))
    manifest = replace(manifest, limits=limits_of(arguments, manifest.limits))
    lock = _lock(arguments, manifest, console)
    folder = Path(arguments.file or DEFAULT_NAME).parent
    access = access_of(arguments, console, manifest.registries, folder, offline=arguments.offline)
    with (
        collected_images(manifest.images, manifest.platform, manifest.limits, folder, access, lock) as images,
        staged_output(Path(arguments.out)) as stage,
    ):
        build = ArtifactBuild(
            manifest,
            _of_mode(images, manifest.mode),
            stage,
            console,
            arguments.source_date_epoch,
            arguments.jobs,
            lock,
            tuple(arguments.allow_foreign_elf),
            not arguments.no_sbom,
        )
        finished = build.archive() if manifest.mode == "archive" else build.store()
        sums = {name: digest for name, (digest, _) in finished.outputs.items()}
        stage.publish(sums)
    console.result(_result(arguments.out, finished, images), _text(arguments.out, finished, images))
    return 0


def _manifest(arguments: argparse.Namespace) -> Manifest:
    if arguments.file is not None:
        return load_manifest(Path(arguments.file))
    if arguments.sources:
        return defaults()
    if not Path(DEFAULT_NAME).exists():
        raise RequestRefused(
            f"there is no {DEFAULT_NAME} here, and no image was named",
            hint="name the manifest with -f, or an image: shiplap build app:1=docker-archive:app.tar",
        )
    return load_manifest(Path(DEFAULT_NAME))


def _overrides(arguments: argparse.Namespace) -> Overrides:
    outputs = None
    if arguments.output:
        outputs = tuple(name.strip() for value in arguments.output for name in value.split(",") if name.strip())
    return Overrides(
        platform=arguments.platform,
        epoch=None,
        mode=arguments.mode,
        engine=arguments.engine,
        driver=arguments.driver,
        outputs=outputs,
        store_path=arguments.store_path,
        placement=arguments.placement,
        images=tuple(parse_argument(text) for text in arguments.sources) if arguments.sources else None,
    )


def _lock(arguments: argparse.Namespace, manifest: Manifest, console: Console) -> Lock | None:
    """The lock that counts: the one that was named, else the one beside the manifest; None for images of the command line."""
    path = Path(arguments.lock) if arguments.lock else lock_path(Path(arguments.file or DEFAULT_NAME))
    if arguments.lock is None and arguments.sources:
        if arguments.locked:
            _require_pins(manifest)
        return None
    if arguments.lock is None and not arguments.locked and not path.exists():
        return None
    lock = load_lock(path)
    if arguments.locked:
        require_agreement(manifest, lock, f"--locked: {path}")
    for difference in disagreements(manifest, lock):
        console.note(f"{path} is not up to date: {difference}")
    return lock


def _of_mode(images: tuple[StoredImage, ...], mode: str) -> tuple[StoredImage, ...]:
    """An archive has no place for the registries' digests of layers."""
    return images if mode == "store" else tuple(replace(stored, blobs=()) for stored in images)


def _require_pins(manifest: Manifest) -> None:
    for request in manifest.images:
        named = request.ref.digest if request.ref else None
        if not (request.digest or request.config_digest or named or parse_source(request.source).digest):
            raise RequestRefused(
                f"--locked: no digest pins {request.ref or request.source}",
                hint=f"name it by its digest: {_by_digest(request)}; or give a manifest, with `config-digest:` or a lock",
            )


def _by_digest(request: ImageRequest) -> str:
    """How a source on the command line is written with a digest."""
    spec = parse_source(request.source)
    if spec.transport == "docker":
        return f"{parse_reference(spec.location).familiar_name}@sha256:…"
    return f"{spec.transport}:{spec.location}:@sha256:…" if spec.transport in FILE_TRANSPORTS else f"{spec.transport}:sha256:…"


def _result(out: str, finished: Finished, images: tuple[StoredImage, ...]) -> dict[str, object]:
    result: dict[str, object] = {
        "out": out,
        "epoch": finished.epoch,
        "images": [
            {"config": stored.image.config_digest, "references": [str(reference) for reference in stored.references]} for stored in images
        ],
        "outputs": {name: {"sha256": digest, "size_bytes": size_bytes} for name, (digest, size_bytes) in finished.outputs.items()},
    }
    if finished.root_hash is not None:
        result["root-hash"] = finished.root_hash
    return result


def _text(out: str, finished: Finished, images: tuple[StoredImage, ...]) -> str:
    lines = []
    for stored in images:
        names = ", ".join(reference.familiar for reference in stored.references)
        lines.append(f"{names}  {stored.image.config_digest}  {count_text(len(stored.image.layers), 'layer')}, {stored.image.platform}")
    for name, (digest, size_bytes) in sorted(finished.outputs.items()):
        lines.append(f"{out}/{name}  {size_text(size_bytes)}  sha256:{digest}")
    if finished.root_hash is not None:
        lines.append(f"root hash  {finished.root_hash}")
    return "\n".join(lines)
