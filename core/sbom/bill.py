"""What both kinds of document say: a store, its images, their layers, systems and packages, each once, with identifiers."""

from __future__ import annotations

import hashlib
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from shiplap.core.sbom.purl import image_url, package_url
from shiplap.core.sbom.software import ImageContents, OperatingSystem, Software
from shiplap.core.store.model import StoredImage

# Of all documents of shiplap; the names below it are hashes (RFC 4122, version 5).
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:shiplap:sbom")


@dataclass(frozen=True, slots=True)
class BillPackage:
    """``identifier``: letters, digits, ``.`` and ``-``, the same for the same package wherever it is."""

    identifier: str
    software: Software
    url: str


@dataclass(frozen=True, slots=True)
class BillImage:
    """An image with what is in it; ``layers``: diffIDs from the base up, each once."""

    identifier: str
    stored: StoredImage
    contents: ImageContents
    packages: tuple[BillPackage, ...]

    @property
    def name(self) -> str:
        """The first reference without tag and digest."""
        return self.stored.references[0].familiar_name if self.stored.references else self.stored.image.label

    @property
    def tag(self) -> str | None:
        return next((one.tag for one in self.stored.references if one.tag), None)

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.stored.image.diff_ids))

    @property
    def urls(self) -> tuple[str, ...]:
        """One for each manifest digest that is known, which is the case with a lock."""
        architecture = self.stored.image.platform.architecture
        return tuple(sorted({url for one in self.stored.references if (url := image_url(one, architecture)) is not None}))


@dataclass(frozen=True, slots=True)
class Bill:
    """``name``: the manifest's. ``store_id``: sha256 of store.json, hex. ``images`` in the order of their config digests."""

    name: str
    store_id: str
    epoch: int
    images: tuple[BillImage, ...]

    @property
    def time(self) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.epoch))

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(diff_id for image in self.images for diff_id in image.layers))

    @property
    def packages(self) -> tuple[BillPackage, ...]:
        found = {package.identifier: package for image in self.images for package in image.packages}
        return tuple(found[identifier] for identifier in sorted(found))

    @property
    def systems(self) -> tuple[OperatingSystem, ...]:
        return tuple(dict.fromkeys(image.contents.system for image in self.images if image.contents.system is not None))

    def uuid(self, body: bytes) -> str:
        """Of the document whose other content is ``body``: documents of one store differ when licences or remarks do."""
        return str(uuid.uuid5(_NAMESPACE, f"{self.store_id} {hashlib.sha256(body).hexdigest()}"))


def bill_of(name: str, store_json: bytes, epoch: int, images: Iterable[tuple[StoredImage, ImageContents]]) -> Bill:
    """Put together what was found. ``epoch`` in seconds is the time of the documents."""
    ordered = sorted(images, key=lambda one: one[0].image.config_digest)
    listed = []
    for stored, contents in ordered:
        identifier = f"Image-{_hex(stored.image.config_digest)}"
        listed.append(BillImage(identifier, stored, contents, tuple(_packages(contents))))
    return Bill(name, hashlib.sha256(store_json).hexdigest(), epoch, tuple(listed))


def layer_identifier(diff_id: str) -> str:
    return f"Layer-{_hex(diff_id)}"


def system_identifier(system: OperatingSystem) -> str:
    whole = _hash("\0".join((system.identifier, system.version, system.name)))
    return f"System-{_plain(system.identifier)}-{_plain(system.version)}-{whole}"


def _packages(contents: ImageContents) -> Iterator[BillPackage]:
    for one in contents.software:
        url = package_url(one, contents.system)
        whole = _hash("\0".join((url, one.licence)))
        yield BillPackage(f"Package-{one.kind}-{_plain(one.name)}-{whole}", one, url)


def _hex(digest: str) -> str:
    return digest.partition(":")[2]


def _hash(text: str) -> str:
    # As long as nobody can find two packages with one hash, of which a document would then show only one.
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", text)[:60]
