"""``shiplap inspect``: what a source, archive, store image or output folder holds."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shiplap.audit.inspection import ImageInfo, Inspection, inspect_thing
from shiplap.cli.access import access_of, add_access_options
from shiplap.cli.console import Console
from shiplap.cli.limits import add_limit_option, limits_of
from shiplap.cli.quantities import count_text, size_text
from shiplap.core.platform import parse_platform

NAME = "inspect"
SUMMARY = "images, digests, layers, sizes and sharing of a source, archive, store image or output folder"
EXAMPLES = """\
shiplap inspect shiplap-out                 what a build made
shiplap inspect store.squashfs --json       a store image from a device, for a script
shiplap inspect docker-archive:app.tar      what an archive holds, before building from it
shiplap inspect docker://redis:7            an image in a registry; layers are fetched with --elf only
shiplap inspect oci:layout --platform linux/arm64
"""

_SHOWN = 10


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("thing", metavar="THING", help="an output folder, store image, store.tar, archive, OCI layout, or a source")
    parser.add_argument("--platform", metavar="OS/ARCH[/VARIANT]", help="which platform of a source with several")
    parser.add_argument("--elf", action="store_true", help="look for programs in the layers of a source, too, all of which are read for it")
    add_limit_option(parser)
    add_access_options(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    platform = parse_platform(arguments.platform) if arguments.platform else None
    access = access_of(arguments, console, {}, Path())
    inspections = inspect_thing(arguments.thing, platform, limits_of(arguments), elf=arguments.elf, access=access)
    data: dict[str, object] = {"things": [inspection.to_data() for inspection in inspections]}
    console.result(data, "\n\n".join(_text(inspection) for inspection in inspections))
    return 0


def _text(inspection: Inspection) -> str:
    facts = ", ".join(f"{name.replace('_bytes', '')} {_fact(name, value)}" for name, value in inspection.facts)
    lines = [f"{inspection.thing}: {inspection.kind} ({facts})"]
    for image in inspection.images:
        lines += _image(image, inspection)
    if not inspection.images:
        return "\n".join(
            [lines[0].partition(" (")[0], *(f"  {name.replace('_bytes', '')}: {_fact(name, value)}" for name, value in inspection.facts)]
        )
    layers = count_text(len(inspection.uses), "layer")
    lines.append(f"{layers}, {size_text(inspection.unique_bytes)}; sharing saves {size_text(inspection.saved_bytes)}")
    if inspection.costs is not None:
        lines += _costs(inspection.costs, {image.config: image for image in inspection.images})
    return "\n".join([*lines, *_programs(inspection)])


def _costs(costs: Mapping[str, Any], images: Mapping[str, ImageInfo]) -> list[str]:
    """A table of the images, then what they share."""
    lines = [f"sizes ({costs['of']}):", f"  {'total':>10}  {'own':>10}  {'shared':>10}"]
    for one in costs["images"]:
        figures = "  ".join(f"{size_text(one[key]):>10}" for key in ("total_bytes", "own_bytes", "shared_bytes"))
        lines.append(f"  {figures}  {_name(images[one['config']])}")
    if "skeleton_bytes" in costs:
        parts = ", ".join(f"{part} {size_text(costs[f'{part}_bytes'])}" for part in ("layers", "skeleton", "other"))
        saved = size_text(costs["saved-by-duplicates_bytes"])
        lines.append(f"  {parts}; shared layers save {size_text(costs['saved-by-sharing_bytes'])}, equal contents {saved}")
    return lines


def _programs(inspection: Inspection) -> list[str]:
    lines = []
    for report in inspection.elf:
        for image in report.images:
            counted = ", ".join(f"{number} {architecture}" for architecture, number in image.counted) or "none"
            lines.append(f"programs of {image.label}: {counted}")
            if image.foreign:
                lines.append(f"  not for {report.platform}: {len(image.foreign)}")
            lines += [f"    layer {one.layer}: {one.shown} is {one.found}" for one in image.foreign[:_SHOWN]]
            if len(image.foreign) > _SHOWN:
                lines.append(f"    and {len(image.foreign) - _SHOWN} more")
        lines += [f"  {note}" for note in report.notes]
    return lines


def _name(image: ImageInfo) -> str:
    return ", ".join(image.references) or image.config


def _fact(name: str, value: object) -> str:
    return size_text(value) if name.endswith("_bytes") and isinstance(value, int) else str(value)


def _image(image: ImageInfo, inspection: Inspection) -> list[str]:
    names = ", ".join(image.references) or "(no name)"
    lines = [f"  {names}", f"    config {image.config}, {image.platform}, created {image.created_epoch}"]
    if image.manifest:
        lines.append(f"    manifest {image.manifest}" + (f", index {image.index}" if image.index else ""))
    for number, layer in enumerate(image.layers):
        uses = inspection.uses[layer.chain_id]
        stored = f" ({size_text(layer.cost.stored_bytes)} in the image)" if layer.cost else ""
        shared = stored + (f", in {uses} images" if uses > 1 else "")
        lines.append(f"    layer {number}: diffID {layer.diff_id}, {size_text(layer.size_bytes)}{shared}")
    return lines
