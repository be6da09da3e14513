"""``shiplap build``: images → everything in the output folder."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from shiplap.cli.access import access_of, add_access_options
from shiplap.cli.console import Console
from shiplap.cli.limits import add_limit_option, limits_of
from shiplap.cli.optionvalues import epoch, jobs
from shiplap.cli.quantities import count_text, size_text
from shiplap.core.archive import ArchiveImage, archive_name, write_images_tar
from shiplap.core.collect import RequestRefused, collected_images, parse_argument
from shiplap.core.elfaudit import ElfAudit
from shiplap.core.elfreport import ElfReport
from shiplap.core.lock import Lock
from shiplap.core.lock.agreement import disagreements, require_agreement
from shiplap.core.lock.document import load_lock, lock_path, write_lock
from shiplap.core.manifest import DEFAULT_NAME, ImageRequest, Manifest, Overrides, defaults, load_manifest, resolve
from shiplap.core.output import Stage, sha256_file, staged_output
from shiplap.core.record import build_record
from shiplap.core.reference import parse_reference
from shiplap.core.sources import parse_source
from shiplap.core.sources.spec import FILE_TRANSPORTS
from shiplap.core.store.identity import StoreIdentity, choose_epoch
from shiplap.core.store.model import StoredImage, common_platform
from shiplap.rootfs.sinks import SquashfsOptions
from shiplap.rootfs.sinks.erofs import ErofsOptions
from shiplap.rootfs.storecosts import StoreCosts, layers_costs
from shiplap.rootfs.storeimage import StorePlan, describe_form, write_store_artifacts
from shiplap.rootfs.target.kit import target_tar
from shiplap.rootfs.target.plan import is_sealed, target_settings, with_hashes
from shiplap.rootfs.target.settings import TargetSettings
from shiplap.verity.identity import erofs_uuid

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
_NO_BRIDGE = ("--network=none", "--network=host")
_NO_BUDGET = "`budget: {store-image: …}` is not checked: this build writes no store image"


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
    parser.add_argument("--source-date-epoch", type=epoch, metavar="N", help="the time of everything that shiplap itself writes")
    parser.add_argument("--jobs", "-j", type=jobs, metavar="N", help="processors to use (default all); changes no byte")
    parser.add_argument(
        "--allow-foreign-elf",
        action="append",
        default=[],
        metavar="PATH",
        help="a path or folder of programs for another platform; repeatable",
    )
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
        build = _Build(
            manifest,
            _of_mode(images, manifest.mode),
            stage,
            console,
            arguments.source_date_epoch,
            arguments.jobs,
            lock,
            tuple(arguments.allow_foreign_elf),
        )
        finished = build.archive() if manifest.mode == "archive" else build.store()
        sums = {name: digest for name, (digest, _) in finished.outputs.items()}
        stage.publish(sums)
    console.result(_result(arguments.out, finished, images), _text(arguments.out, finished, images))
    return 0


@dataclass(frozen=True, slots=True)
class _Finished:
    """``outputs``: name → (sha256 hex, size in bytes), record.json among them."""

    outputs: dict[str, tuple[str, int]]
    epoch: int
    root_hash: str | None


@dataclass(frozen=True, slots=True)
class _Build:
    manifest: Manifest
    images: tuple[StoredImage, ...]
    stage: Stage
    console: Console
    epoch_asked: int | None
    jobs: int | None
    lock: Lock | None = None
    allow_foreign_elf: tuple[str, ...] = ()
    sums: dict[str, tuple[str, int]] = field(default_factory=dict)

    def identity(self, epoch: int, options: Mapping[str, Any]) -> StoreIdentity:
        manifest = self.manifest
        platform = common_platform(self.images, manifest.platform)
        assert platform is not None, "there is at least one image"
        further = dict(options)
        if manifest.security_version is not None:
            further["security-version"] = manifest.security_version
        return StoreIdentity(
            mode=manifest.mode,
            engine=manifest.engine,
            driver=manifest.driver,
            platform=platform,
            store_path=manifest.store_path,
            epoch=epoch,
            images=self.images,
            options=tuple(further.items()),
        )

    def store(self) -> _Finished:
        manifest = self.manifest
        epoch, epoch_from = self._epoch()
        identity, form = self._erofs(epoch) if "erofs" in manifest.outputs else self._squashfs(epoch)
        plan = StorePlan(
            identity=identity,
            outputs=manifest.outputs,
            form=form,
            limits=manifest.limits,
            verity_hash=manifest.verity.hash,
            budget_bytes=manifest.budget_store_image_bytes,
            jobs=self.jobs,
        )
        tools = [describe_form(form)] if plan.image_name else []
        target = target_settings(manifest, identity, plan.image_name)
        if manifest.budget_store_image_bytes is not None and plan.image_name is None:
            self.console.note(_NO_BUDGET)
        made = write_store_artifacts(plan, self.stage, self.console.progress, self._elf_audit(identity))
        seal = None
        if made.root_hash is not None:
            seal = {"hash": manifest.verity.hash, "root-hash": made.root_hash, "padding_bytes": made.padding_bytes}
        asked = {
            "mode": "store",
            "engine": manifest.engine,
            "driver": manifest.driver,
            "outputs": sorted(manifest.outputs),
            "store-path": manifest.store_path,
            **dict(identity.options),
        }
        if target is not None and plan.image_name is not None:
            asked["target"] = self._target(target, plan.image_name, epoch, made.root_hash)
        outputs = self._finish(asked, tools, {"value": epoch, "from": epoch_from}, made.layer_sizes, seal, made.costs, made.elf)
        return _Finished(outputs, epoch, made.root_hash)

    def _squashfs(self, epoch: int) -> tuple[StoreIdentity, SquashfsOptions]:
        squashfs = self.manifest.squashfs
        form = {
            "block-size": squashfs.block_size_bytes,
            "compression": squashfs.compression,
            "level": squashfs.level,
            "whiteouts": squashfs.whiteouts,
        }
        options = SquashfsOptions(
            tool=squashfs.tool,
            compression=squashfs.compression,
            level=squashfs.level,
            block_size_bytes=squashfs.block_size_bytes,
            epoch=epoch,
            jobs=self.jobs,
            allow_tool=squashfs.allow_tool,
        )
        return self.identity(epoch, {"squashfs": form}), options

    def _erofs(self, epoch: int) -> tuple[StoreIdentity, ErofsOptions]:
        erofs = self.manifest.erofs
        form = {"cluster-size": erofs.cluster_size_bytes, "compression": erofs.compression, "level": erofs.level}
        identity = self.identity(epoch, {"erofs": form})
        options = ErofsOptions(
            uuid=erofs_uuid(identity.to_json()),
            compression=erofs.compression,
            level=erofs.level,
            cluster_bytes=erofs.cluster_size_bytes,
            epoch=epoch,
            jobs=self.jobs,
        )
        return identity, options

    def archive(self) -> _Finished:
        manifest, wanted = self.manifest, self.manifest.archive
        epoch, epoch_from = self._epoch()
        form = {"compression": wanted.compression, "level": wanted.level}
        identity = self.identity(epoch, {"archive": form})
        self.stage.write("store.json", identity.to_json())
        target = target_settings(manifest, identity, archive_name(wanted.compression))
        audit = self._elf_audit(identity)
        if manifest.budget_store_image_bytes is not None:
            self.console.note(_NO_BUDGET)
        archived = [ArchiveImage(stored.image, tuple(str(reference) for reference in stored.references)) for stored in self.images]
        with self.stage.writer(archive_name(wanted.compression)) as write:
            made = write_images_tar(
                archived,
                write,
                epoch=epoch,
                limits=manifest.limits,
                compression=wanted.compression,
                level=wanted.level,
                progress=self.console.progress,
                audit=audit,
            )
        elf = audit.conclude(self.console.note)
        asked = {"mode": "archive", "engine": manifest.engine, "archive": form}
        if target is not None:
            asked["target"] = self._target(target, archive_name(wanted.compression), epoch, None)
        # Compressed bytes depend on the compressor's version; these do not.
        plain = {"sha256": made.sha256, "size_bytes": made.size_bytes}
        tools = [{"tool": "libarchive", **made.compression, "uncompressed": plain}]
        outputs = self._finish(asked, tools, {"value": epoch, "from": epoch_from}, dict(made.layers), None, None, elf)
        return _Finished(outputs, epoch, None)

    def _target(self, settings: TargetSettings, artifact: str, epoch: int, root_hash: str | None) -> dict[str, Any]:
        """Write target.tar, which belongs to the finished ``artifact``; returns what record.json says of it."""
        manifest = self.manifest
        artifact_sha256, size_bytes = self._sum(artifact)
        settings = with_hashes(settings, manifest, artifact_sha256, size_bytes, root_hash)
        self.stage.write("target.tar", target_tar(settings, epoch))
        networks = [word for one in settings.containers for word in one.options if word.startswith("--network=")]
        return {
            "bridge": len(networks) < len(settings.containers) or any(word not in _NO_BRIDGE for word in networks) or not networks,
            "check": settings.check,
            "containers": [one.name for one in settings.containers],
            "data-root": settings.data_root.path,
            "init": list(settings.init),
            "on-corruption": settings.on_corruption,
            "persistence": settings.data_root.persistence,
            "placement": manifest.device.placement,
            "sealed": root_hash is not None and is_sealed(manifest),
        }

    def _epoch(self) -> tuple[int, str]:
        return choose_epoch(
            self.epoch_asked, self.manifest.epoch, os.environ, self.images, lock=self.lock.epoch if self.lock is not None else None
        )

    def _elf_audit(self, identity: StoreIdentity) -> ElfAudit:
        return ElfAudit(self.images, identity.platform, self.allow_foreign_elf)

    def _finish(
        self,
        options: Mapping[str, Any],
        tools: list[dict[str, Any]],
        epoch: Mapping[str, Any],
        layer_sizes: Mapping[str, int],
        seal: Mapping[str, Any] | None,
        costs: StoreCosts | None,
        elf: ElfReport | None,
    ) -> dict[str, tuple[str, int]]:
        outputs = {name: self._sum(name) for name in self.stage.names()}
        record = build_record(
            images=self.images,
            options=options,
            tools=tools,
            epoch=epoch,
            layer_sizes=layer_sizes,
            outputs=outputs,
            seal=seal,
            lock_sha256=sha256(write_lock(self.lock)).hexdigest() if self.lock is not None else None,
            stored_bytes=costs.layer_bytes if costs is not None else None,
            costs=costs.to_data(self.images) if costs is not None else layers_costs(self.images, layer_sizes),
            elf_audit=elf.to_data() if elf is not None else None,
        )
        self.stage.write("record.json", record)
        return {**outputs, "record.json": self._sum("record.json")}

    def _sum(self, name: str) -> tuple[str, int]:
        """Of a finished artifact; each is read once."""
        if name not in self.sums:
            path = self.stage.path(name)
            with self.console.progress.task(f"sha256 of {name}", path.stat().st_size) as task:
                self.sums[name] = sha256_file(path, task.advance)
        return self.sums[name]


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
        require_agreement(manifest, lock, str(path))
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


def _result(out: str, finished: _Finished, images: tuple[StoredImage, ...]) -> dict[str, object]:
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


def _text(out: str, finished: _Finished, images: tuple[StoredImage, ...]) -> str:
    lines = []
    for stored in images:
        names = ", ".join(reference.familiar for reference in stored.references)
        lines.append(f"{names}  {stored.image.config_digest}  {count_text(len(stored.image.layers), 'layer')}, {stored.image.platform}")
    for name, (digest, size_bytes) in sorted(finished.outputs.items()):
        lines.append(f"{out}/{name}  {size_text(size_bytes)}  sha256:{digest}")
    if finished.root_hash is not None:
        lines.append(f"root hash  {finished.root_hash}")
    return "\n".join(lines)
