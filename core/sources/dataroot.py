"""Docker's data-root on disk, as the engine left it when it stopped: which driver, which images, which layers.

Layout as in moby: image/fs.go, layer/filestore.go, reference/store.go. Nothing in it is followed out of it, and
nothing is believed: configs and layers have their digests.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

from shiplap.core.blobs import Files, SourceInvalidContent, read
from shiplap.core.errors import OutsideFailure, Refused
from shiplap.core.image import chain_ids
from shiplap.core.jsontext import elements, member, parse_object, shown
from shiplap.core.limits import Limits
from shiplap.core.sources.assembled import NOT_ROOT, AssembledBlob, UnpackedLayer
from shiplap.core.sources.outertar import SourceMissing

# Where a driver keeps the tree of a layer, below the data-root. With vfs it is the whole tree up to this layer: the
# layer's own files are in it.
DRIVERS = {"overlay2": "overlay2/{}/diff", "vfs": "vfs/dir/{}"}
# bbolt databases that a running dockerd holds under flock(2), for as long as it runs.
_HELD = (
    "volumes/metadata.db",
    "buildkit/cache.db",
    "buildkit/snapshots.db",
    "buildkit/metadata_v2.db",
    "buildkit/containerdmeta.db",
    "containerd/daemon/io.containerd.metadata.v1.bolt/meta.db",
)
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}")
_HEX = re.compile(r"[a-f0-9]{64}")
_CACHE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_REMAPPED = re.compile(r"\d+\.\d+")
_SMALL_BYTES = 4096


class DataRootUnusable(Refused):
    """A folder that is no data-root, or one that cannot be read as it is."""


class EngineRunning(Refused):
    """An engine is at work on the data-root."""


class DataRoot:
    """``files``: its small files. ``driver``: the storage driver whose images these are."""

    def __init__(self, path: Path, files: Files, limits: Limits) -> None:
        self.path = path
        self.files = files
        self.label = files.label
        self._limits = limits
        self.driver = self._driver()
        self._image = f"image/{self.driver}"

    def _driver(self) -> str:
        there = [name for name in _names(self.path / "image", self.label) if self._has_images(name)]
        if len(there) > 1:
            raise DataRootUnusable(
                f"{self.label} has images of several storage drivers: {', '.join(there)}",
                hint="copy the data-root without the folder image/DRIVER of those that are not meant",
            )
        if not there:
            raise self._no_images()
        if there[0] not in DRIVERS:
            raise DataRootUnusable(
                f"{self.label} has the storage driver {shown(there[0])}; shiplap reads {' and '.join(DRIVERS)}",
                hint="start the engine and take the images from it (docker-daemon:NAME), or docker save -o images.tar NAME…",
            )
        return there[0]

    def _has_images(self, driver: str) -> bool:
        return bool(_names(self.path / "image" / driver / "imagedb" / "content" / "sha256", self.label))

    def _no_images(self) -> DataRootUnusable:
        top = _names(self.path, self.label)
        remapped = [name for name in top if _REMAPPED.fullmatch(name)]
        if remapped:
            return DataRootUnusable(f"{self.label} is a data-root with userns-remap", hint=f"name the folder in it: {remapped[0]}")
        if any(name.startswith("io.containerd.") for name in top) or (self.path / "containerd" / "daemon").is_dir():
            return DataRootUnusable(
                f"{self.label} has no image of a storage driver: the engine keeps its images in containerd's store, if it has any",
                hint="start the engine and take the images from it (docker-daemon:NAME), or docker save -o images.tar NAME…",
            )
        if "overlay-images" in top or "overlay-layers" in top:
            return DataRootUnusable(
                f"{self.label} is Podman's storage, not Docker's", hint="podman system service, then podman:NAME, or podman save"
            )
        return DataRootUnusable(
            f"{self.label} is not a data-root of Docker with images: it has no image/*/imagedb",
            hint="docker info shows the Docker Root Dir",
        )

    @property
    def warning(self) -> str | None:
        """What may be missed: an engine that went over to containerd's store keeps what it had, and puts the new images there."""
        blobs = self.path / "containerd/daemon/io.containerd.content.v1.content/blobs/sha256"
        if not _names(blobs, self.label):
            return None
        return f"{self.label}: images that the engine keeps in containerd's store are not read, only those of {self.driver}"

    def require_stopped(self) -> None:
        """Raises EngineRunning when a dockerd works on this folder, also in another container or namespace.

        It holds its databases under flock; that cannot be seen on a network file system whose other side is another machine,
        nor where the engine has none of them yet. A change meanwhile is found by the layers' digests in any case.
        """
        for name in _HELD:
            try:
                descriptor = os.open(self.path / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            except OSError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise EngineRunning(
                    f"{self.label} is in use: an engine holds {name}",
                    hint="stop it (systemctl stop docker.socket docker), or take the images from it: docker-daemon:NAME",
                ) from None
            except OSError:
                continue  # a file system without locks
            finally:
                os.close(descriptor)

    def configs(self) -> Iterator[tuple[str, bytes]]:
        """Digest and raw bytes of every image's config, in the order of the digests."""
        folder = f"{self._image}/imagedb/content/sha256"
        names = _names(self.path / folder, self.label)
        if len(names) > self._limits.members:
            raise DataRootUnusable(f"{self.label} has more than {self._limits.members} images")
        for name in names:
            if _HEX.fullmatch(name):
                digest = f"sha256:{name}"
                yield digest, read(self.files, f"{folder}/{name}", limit_bytes=self._limits.metadata_bytes, digest=digest)

    def names(self) -> dict[str, list[str]]:
        """Config digest → its names in ``repositories.json``, sorted, as Docker writes them: ``app:1``, ``app@sha256:…``."""
        path = f"{self._image}/repositories.json"
        if self.files.size_bytes(path) is None:
            return {}
        what = f"{path} in {self.label}"
        raw = read(self.files, path, limit_bytes=self._limits.metadata_bytes)
        document = parse_object(raw, what=what, limit_bytes=self._limits.metadata_bytes)
        found: dict[str, set[str]] = {}
        repositories = member(document, "Repositories", dict, what=what) or {}
        for one in elements(repositories.values(), dict, what=what):
            for name, digest in zip(one, elements(one.values(), str, what=what), strict=True):
                if not _DIGEST.fullmatch(digest):
                    raise SourceInvalidContent(f"{what}: '{shown(digest)}' is no image ID")
                found.setdefault(digest, set()).add(name)
        return {digest: sorted(names) for digest, names in found.items()}

    def layers(self, diff_ids: tuple[str, ...], what: str) -> Iterator[AssembledBlob]:
        """The layers of an image, base first; raises SourceInvalidContent where the database does not have one.

        A layer's place follows from the config alone (its chainID); what the database says of parents is not asked.
        """
        for index, (chain_id, diff_id) in enumerate(zip(chain_ids(diff_ids), diff_ids, strict=True)):
            record = f"{self._image}/layerdb/sha256/{chain_id.partition(':')[2]}"
            where = f"{what}, layer {index}"
            if self._small(f"{record}/diff", where) != diff_id:
                raise SourceInvalidContent(f"{where}: the layer database of {self.label} says another diffID than {diff_id}")
            cache_id = self._small(f"{record}/cache-id", where)
            if not _CACHE_ID.fullmatch(cache_id):
                raise SourceInvalidContent(f"{where}: '{shown(cache_id)}' is no cache-id")
            if self.files.size_bytes(f"{record}/tar-split.json.gz") is None:
                raise SourceInvalidContent(
                    f"{where}: it has no tar-split data, and without it nobody can put its tar together again",
                    hint="pull or load the image again",
                )
            place = DRIVERS[self.driver].format(cache_id)
            location = f"{place} in {self.label}"
            tree = UnpackedLayer(self._folder(place, where), location)
            yield AssembledBlob(location, tree, self._reader(f"{record}/tar-split.json.gz"), self._limits, diff_id)

    def _folder(self, place: str, where: str) -> str:
        """The path of a layer's tree, with no link on the way."""
        path = self.path.resolve() / place
        real = os.path.realpath(path)
        if real != str(path):
            raise SourceInvalidContent(
                f"{where}: {place} in {self.label} is a link to {shown(real)}, and links are not followed in a data-root",
                hint="of a store that shiplap made, name the store itself",
            )
        if not path.is_dir():
            raise SourceInvalidContent(f"{where}: {place} is not in {self.label}", hint="pull or load the image again")
        return real

    def _small(self, path: str, where: str) -> str:
        if self.files.size_bytes(path) is None:
            raise SourceInvalidContent(f"{where} is not in the layer database of {self.label}", hint="pull or load the image again")
        return read(self.files, path, limit_bytes=_SMALL_BYTES).decode("ascii", "replace").strip()

    def _reader(self, path: str) -> _Reader:
        return _Reader(self.files, path)


class _Reader:
    """Reads a file from its beginning each time it is called; open only meanwhile, since an image may have many layers."""

    def __init__(self, files: Files, path: str) -> None:
        self._files = files
        self._path = path

    def __call__(self) -> Iterator[bytes]:
        try:
            yield from self._files.slice(self._path).chunks()
        except (OSError, EOFError) as error:
            raise OutsideFailure(f"cannot read {self._path} in {self._files.label}: {error}") from error
        finally:
            self._files.release(self._path)


def require_readable(path: Path, label: str) -> None:
    """Raises SourceMissing, or DataRootUnusable with the hint to be root."""
    try:
        with os.scandir(path):
            pass
        with os.scandir(path / "image"):
            pass
    except FileNotFoundError:
        if not path.exists():
            raise SourceMissing(f"{path} does not exist", hint="docker info shows the Docker Root Dir") from None
    except NotADirectoryError:
        raise SourceMissing(f"{label} is not a folder", hint="a file of `docker save` is docker-archive:FILE") from None
    except PermissionError as error:
        raise DataRootUnusable(f"{label} may not be read: {error.strerror}", hint=NOT_ROOT) from error
    except OSError as error:
        raise OutsideFailure(f"cannot read {label}: {error.strerror}") from error


def _names(path: Path, label: str) -> list[str]:
    try:
        return sorted(one.name for one in path.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        raise DataRootUnusable(f"{label} may not be read: {path.name}: {error.strerror}", hint=NOT_ROOT) from error
