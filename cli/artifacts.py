"""What a build writes into its stage: store or archive, what belongs to either, and the record of it all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from shiplap.cli.console import Console
from shiplap.core.archive import ArchiveImage, archive_name, write_images_tar
from shiplap.core.elfaudit import ElfAudit
from shiplap.core.elfreport import ElfReport
from shiplap.core.lock import Lock
from shiplap.core.lock.document import write_lock
from shiplap.core.manifest import Manifest
from shiplap.core.output import Stage, sha256_file
from shiplap.core.record import build_record
from shiplap.core.sbom.collection import PackageCollection
from shiplap.core.sbom.writing import write_bills
from shiplap.core.store.identity import StoreIdentity, choose_epoch
from shiplap.core.store.model import StoredImage, common_platform
from shiplap.rootfs.sinks import SquashfsOptions
from shiplap.rootfs.sinks.erofs import ErofsOptions
from shiplap.rootfs.storecosts import StoreCosts, layers_costs
from shiplap.rootfs.storeimage import StorePlan, describe_form, write_store_artifacts
from shiplap.rootfs.target.canary import canary_image, needs_canary
from shiplap.rootfs.target.kit import target_tar
from shiplap.rootfs.target.plan import is_sealed, target_settings, with_hashes
from shiplap.rootfs.target.settings import TargetSettings
from shiplap.verity.identity import erofs_uuid

_NO_BRIDGE = ("--network=none", "--network=host")
_NO_BUDGET = "`budget: {store-image: …}` is not checked: this build writes no store image"


@dataclass(frozen=True, slots=True)
class Finished:
    """``outputs``: name → (sha256 hex, size in bytes), record.json among them."""

    outputs: dict[str, tuple[str, int]]
    epoch: int
    root_hash: str | None


@dataclass(frozen=True, slots=True)
class ArtifactBuild:
    """One build. ``epoch_asked``: of the command line; ``sums``: name → (sha256 hex, size in bytes) of what is finished."""

    manifest: Manifest
    images: tuple[StoredImage, ...]
    stage: Stage
    console: Console
    epoch_asked: int | None
    jobs: int | None
    lock: Lock | None = None
    allow_foreign_elf: tuple[str, ...] = ()
    sbom: bool = True
    sums: dict[str, tuple[str, int]] = field(default_factory=dict)

    def _identity(self, epoch: int, options: Mapping[str, Any]) -> StoreIdentity:
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

    def store(self) -> Finished:
        """Write a store. Raises what reading the images and writing the store raise."""
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
        software = PackageCollection(self.images)
        others = (software,) if self.sbom else ()
        made = write_store_artifacts(plan, self.stage, self.console.progress, self._elf_audit(identity), others)
        self._bills(identity, software)
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
            image = self.stage.path(plan.image_name)
            if isinstance(form, SquashfsOptions) and needs_canary(image):
                target = replace(target, canary=canary_image(form))
            asked["target"] = self._target(target, plan.image_name, epoch, made.root_hash)
        outputs = self._finish(asked, tools, {"value": epoch, "from": epoch_from}, made.layer_sizes, seal, made.costs, made.elf)
        return Finished(outputs, epoch, made.root_hash)

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
        return self._identity(epoch, {"squashfs": form}), options

    def _erofs(self, epoch: int) -> tuple[StoreIdentity, ErofsOptions]:
        erofs = self.manifest.erofs
        form = {"cluster-size": erofs.cluster_size_bytes, "compression": erofs.compression, "level": erofs.level}
        identity = self._identity(epoch, {"erofs": form})
        options = ErofsOptions(
            uuid=erofs_uuid(identity.to_json()),
            compression=erofs.compression,
            level=erofs.level,
            cluster_bytes=erofs.cluster_size_bytes,
            epoch=epoch,
            jobs=self.jobs,
        )
        return identity, options

    def archive(self) -> Finished:
        """Write an archive for `docker load`. Raises what reading the images and writing the archive raise."""
        manifest, wanted = self.manifest, self.manifest.archive
        epoch, epoch_from = self._epoch()
        form = {"compression": wanted.compression, "level": wanted.level}
        identity = self._identity(epoch, {"archive": form})
        self.stage.write("store.json", identity.to_json())
        target = target_settings(manifest, identity, archive_name(wanted.compression))
        audit, software = self._elf_audit(identity), PackageCollection(self.images)
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
                audits=(audit, software) if self.sbom else (audit,),
            )
        self._bills(identity, software)
        elf = audit.conclude(self.console.note)
        asked = {"mode": "archive", "engine": manifest.engine, "archive": form}
        if target is not None:
            asked["target"] = self._target(target, archive_name(wanted.compression), epoch, None)
        # Compressed bytes depend on the compressor's version; these do not.
        plain = {"sha256": made.sha256, "size_bytes": made.size_bytes}
        tools = [{"tool": "libarchive", **made.compression, "uncompressed": plain}]
        outputs = self._finish(asked, tools, {"value": epoch, "from": epoch_from}, dict(made.layers), None, None, elf)
        return Finished(outputs, epoch, None)

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
            "quadlet": settings.quadlet,
            "sealed": root_hash is not None and is_sealed(manifest),
        }

    def _bills(self, identity: StoreIdentity, software: PackageCollection) -> None:
        if self.sbom:
            write_bills(self.stage, self.manifest.name, identity, software, self.console.note)

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
