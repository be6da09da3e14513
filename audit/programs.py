"""The ELF audit of what exists already: the programs in a finished store, or in a source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from shiplap.audit.storeview import StoreView
from shiplap.core.elfaudit import ElfAudit
from shiplap.core.elfreport import ElfReport
from shiplap.core.entries import Entry, Kind
from shiplap.core.image import Image
from shiplap.core.layer.spool import uncompressed_layer
from shiplap.core.limits import Limits
from shiplap.core.platform import Platform
from shiplap.core.store.forms import form_of
from shiplap.core.store.identity import StoreIdentity
from shiplap.core.store.model import StoredImage, unique_layers


def store_programs(view: StoreView, identity: StoreIdentity) -> ElfReport:
    """Judged by the store's platform. What the build allowed is in no store, so nothing is allowed here."""
    audit = ElfAudit(identity.images, identity.platform)
    form = form_of(identity)
    for layer in unique_layers(identity.images):
        root = form.layer_root(layer, view.sealed)
        audit.entries(layer.layer.diff_id, _with_contents(view, root), root)
    return audit.finish()


def _with_contents(view: StoreView, root: bytes) -> Iterator[Entry]:
    """A layer's entries; a file that lies in a lower layer's tree (vfs) comes with its content."""
    for entry in view.subtree(root):
        if entry.kind is Kind.HARDLINK and not entry.link.startswith(root + b"/"):
            found = view.find(entry.link)
            if found is not None:
                entry = replace(found, path=entry.path)
        yield entry


def source_programs(images: Iterable[Image], platform: Platform | None, limits: Limits) -> tuple[ElfReport, ...]:
    """A report for each image, judged by ``platform``, else by the image's own. Reads all layers; raises what that raises."""
    reports = []
    for image in images:
        audit = ElfAudit([StoredImage(image, ())], platform or image.platform)
        for layer in image.layers:
            with uncompressed_layer(image, layer, limits) as tar:
                audit.tar(layer.diff_id, tar, f"{image.label}, layer {layer.index} ({layer.diff_id[:19]})", limits.entries)
        reports.append(audit.finish())
    return tuple(reports)
