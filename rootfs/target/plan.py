"""From a manifest and a store's identity to the settings of the target kit."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256

from shiplap.core.manifest.model import Manifest
from shiplap.core.store.identity import StoreIdentity
from shiplap.rootfs.target.containers import containers_of
from shiplap.rootfs.target.settings import Container, DataRoot, TargetSettings
from shiplap.verity.discoverable import partition_uuids

HASH_TREE = "store.verity"


def target_settings(manifest: Manifest, identity: StoreIdentity, artifact: str | None) -> TargetSettings | None:
    """What is known before the build: all but the hashes, see :func:`with_hashes`.

    ``artifact``: name of the store image or the archive. None where there is none. Raises TargetRefused for containers of
    images that are not there.
    """
    if artifact is None:
        return None
    device, root = manifest.device, manifest.device.data_root
    images = tuple((one.image.config_digest, str(reference)) for one in identity.images for reference in one.references)
    carried = images if manifest.mode == "store" else carried_by_archive(identity)
    path = f"{manifest.store_path}/{artifact}"
    is_store = manifest.mode == "store"
    return TargetSettings(
        mode=manifest.mode,
        engine=manifest.engine,
        driver=manifest.driver,
        store_id=sha256(identity.to_json()).hexdigest(),
        store_path=manifest.store_path,
        images=carried,
        data_root=DataRoot(
            root.path, root.persistence or "volatile", None if root.size_bytes is None else str(root.size_bytes), root.volumes_path
        ),
        image=path if is_store and device.placement != "tree" else "",
        archive="" if is_store else path,
        check=manifest.verity.check,
        on_corruption=manifest.verity.on_corruption,
        seal=manifest.verity.seal,
        filesystem="erofs" if artifact.endswith(".erofs") else "squashfs",
        init=device.init,
        quadlet=device.quadlet,
        containers=tuple(_known_as(one, carried) for one in containers_of(device.containers, images)),
        engine_config=json.loads(device.engine_config),
    )


def carried_by_archive(identity: StoreIdentity) -> tuple[tuple[str, str], ...]:
    """(config digest, name) pairs that the engine has after ``docker load``: tags; of an image without one its ID.

    A digest reference is lost on the way (moby issues 22011, 43570), see :mod:`shiplap.core.archive`.
    """
    pairs: dict[tuple[str, str], None] = {}
    for one in identity.images:
        config = one.image.config_digest
        tags = [str(replace(reference, digest=None)) for reference in one.references if reference.tag is not None]
        for name in tags or [config]:
            pairs.setdefault((config, name))
    return tuple(pairs)


def _known_as(container: Container, images: tuple[tuple[str, str], ...]) -> Container:
    """The container, with a name that its image has on the device."""
    names = [name for config, name in images if config == container.image]
    tag = container.reference.partition("@")[0]
    return container if container.reference in names else replace(container, reference=tag if tag in names else names[0])


def with_hashes(
    settings: TargetSettings, manifest: Manifest, artifact_sha256: str, size_bytes: int, root_hash: str | None
) -> TargetSettings:
    """The settings with what the finished image or archive decides. ``root_hash``: None without a hash tree.

    A partition is found by its hash tree's root hash, as the Discoverable Partitions Specification derives the two UUIDs.
    """
    done = replace(settings, sha256=artifact_sha256, image_bytes=size_bytes)
    if root_hash is None or manifest.device.placement == "tree":
        return done
    if is_sealed(manifest):
        done = replace(done, root_hash=root_hash, tree=f"{manifest.store_path}/{HASH_TREE}")
    if manifest.device.placement == "partition":
        data, tree = partition_uuids(root_hash)
        done = replace(done, image=f"PARTUUID={data}", tree=f"PARTUUID={tree}" if done.root_hash else "")
    return done


def is_sealed(manifest: Manifest) -> bool:
    """Whether the device opens the store through dm-verity: it is an image with a tree, and nothing says otherwise."""
    settings = manifest.verity
    return "verity" in manifest.outputs and manifest.device.placement != "tree" and settings.seal != "never" and settings.check != "sha256"
