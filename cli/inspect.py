"""``shiplap inspect``: what a source, archive, store image or output folder holds."""

from __future__ import annotations

import argparse

from shiplap.audit.inspection import ImageInfo, Inspection, inspect_thing
from shiplap.cli.console import Console
from shiplap.cli.quantities import size_text
from shiplap.core.limits import Limits
from shiplap.core.platform import parse_platform

NAME = "inspect"
SUMMARY = "images, digests, layers, sizes and sharing of a source, archive, store image or output folder"
EXAMPLES = """\
shiplap inspect shiplap-out                 what a build made
shiplap inspect store.squashfs --json       a store image from a device, for a script
shiplap inspect docker-archive:app.tar      what an archive holds, before building from it
shiplap inspect oci:layout --platform linux/arm64
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("thing", metavar="THING", help="an output folder, store image, store.tar, archive, OCI layout, or a source")
    parser.add_argument("--platform", metavar="OS/ARCH[/VARIANT]", help="which platform of a source with several")


def run(arguments: argparse.Namespace, console: Console) -> int:
    platform = parse_platform(arguments.platform) if arguments.platform else None
    inspections = inspect_thing(arguments.thing, platform, Limits())
    data: dict[str, object] = {"things": [inspection.to_data() for inspection in inspections]}
    console.result(data, "\n\n".join(_text(inspection) for inspection in inspections))
    return 0


def _text(inspection: Inspection) -> str:
    facts = ", ".join(f"{name.replace('_bytes', '')} {_fact(name, value)}" for name, value in inspection.facts)
    lines = [f"{inspection.thing}: {inspection.kind} ({facts})"]
    for image in inspection.images:
        lines += _image(image, inspection)
    layers = len(inspection.uses)
    lines.append(f"{layers} layers, {size_text(inspection.unique_bytes)}; sharing saves {size_text(inspection.saved_bytes)}")
    return "\n".join(lines)


def _fact(name: str, value: object) -> str:
    return size_text(value) if name.endswith("_bytes") and isinstance(value, int) else str(value)


def _image(image: ImageInfo, inspection: Inspection) -> list[str]:
    names = ", ".join(image.references) or "(no name)"
    lines = [f"  {names}", f"    config {image.config}, {image.platform}, created {image.created_epoch}"]
    if image.manifest:
        lines.append(f"    manifest {image.manifest}" + (f", index {image.index}" if image.index else ""))
    for number, layer in enumerate(image.layers):
        uses = inspection.uses[layer.chain_id]
        shared = f", in {uses} images" if uses > 1 else ""
        lines.append(f"    layer {number}: diffID {layer.diff_id}, {size_text(layer.size_bytes)}{shared}")
    return lines
