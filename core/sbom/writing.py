"""Both bills of materials of a build, from what its layers held."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shiplap.core.output import Stage
from shiplap.core.sbom import cyclonedx, spdx
from shiplap.core.sbom.bill import bill_of
from shiplap.core.sbom.collection import PackageCollection
from shiplap.core.store.identity import StoreIdentity


def write_bills(stage: Stage, name: str, identity: StoreIdentity, software: PackageCollection, note: Callable[[str], object]) -> None:
    """Write ``sbom.spdx.json`` and ``sbom.cdx.json``; what could not be read goes to ``note``. ``name``: the manifest's.

    ``software`` has taken every layer of the identity's images.
    """
    found = [(stored, software.contents(stored)) for stored in identity.images]
    for message in _messages((stored.image.label, contents.remarks) for stored, contents in found):
        note(message)
    bill = bill_of(name, identity.to_json(), identity.epoch, found)
    stage.write(spdx.NAME, spdx.spdx_json(bill))
    stage.write(cyclonedx.NAME, cyclonedx.cyclonedx_json(bill))


def _messages(remarks: Iterable[tuple[str, tuple[str, ...]]]) -> Iterable[str]:
    """Each remark with the first image that it is true of: images share layers."""
    said: dict[str, str] = {}
    for label, ones in remarks:
        for one in ones:
            said.setdefault(one, label)
    return [f"{label}: {one}" for one, label in said.items()]
