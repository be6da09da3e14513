"""``shiplap import``: from what is there already, a data-root or a list of images, to ``shiplap.yaml``."""

from __future__ import annotations

import argparse
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shiplap.cli.arguments import UsageError, parse
from shiplap.cli.console import Console
from shiplap.cli.limits import add_limit_option, limits_of
from shiplap.cli.quantities import count_text
from shiplap.core import imagesmanifest
from shiplap.core.errors import Refused
from shiplap.core.jsontext import shown
from shiplap.core.limits import Limits
from shiplap.core.manifest import DEFAULT_NAME
from shiplap.core.manifest.writing import WrittenImage, manifest_text
from shiplap.core.platform import Platform, parse_platform
from shiplap.core.reference import parse_reference
from shiplap.core.sources import dockerroot
from shiplap.core.sources.selection import Found
from shiplap.core.sources.spec import parse_source

NAME = "import"
SUMMARY = "a populated /var/lib/docker, or an images.manifest → shiplap.yaml (and the store)"
EXAMPLES = """\
shiplap import /var/lib/docker                 its images: shiplap.yaml, and their store in shiplap-out
shiplap import /mnt/sd/var/lib/docker -o OUT   the data-root of a device
shiplap import images.manifest                 lines of `name version tag` → shiplap.yaml
"""
DEFAULT_OUT = "shiplap-out"
_MAX_LISTED = 5


class ManifestExists(Refused):
    """The manifest is there already, and somebody may have written it by hand."""


class NothingToImport(Refused):
    """There is no image that could be imported."""


@dataclass(frozen=True, slots=True)
class Imported:
    """``skipped``: what was left out, as (image, reason)."""

    images: tuple[WrittenImage, ...]
    text: bytes
    skipped: tuple[tuple[str, str], ...] = ()


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="a data-root of Docker (overlay2 or vfs, the engine stopped), or an images.manifest")
    parser.add_argument("-o", "--out", metavar="OUT", help=f"where the store of a data-root's images goes (default {DEFAULT_OUT})")
    parser.add_argument("--manifest", metavar="FILE", default=DEFAULT_NAME, help="the manifest to write (default %(default)s)")
    parser.add_argument("--force", action="store_true", help="overwrite the manifest when it exists")
    parser.add_argument("--no-store", action="store_true", help="write the manifest only")
    parser.add_argument("--platform", metavar="OS/ARCH[/VARIANT]", help="take the images for this platform, where there are several")
    add_limit_option(parser)


def run(arguments: argparse.Namespace, console: Console) -> int:
    target = Path(arguments.manifest)
    if not arguments.force and (target.exists() or target.is_symlink()):
        raise ManifestExists(f"{target} exists already", hint="name another file with --manifest, or overwrite it with --force")
    if not target.parent.is_dir():
        raise UsageError(f"--manifest {target}: there is no folder {target.parent}")
    platform = None if arguments.platform is None else parse_platform(arguments.platform)
    if _is_file(arguments.path):
        if arguments.out is not None or arguments.no_store:
            raise UsageError("-o and --no-store are for data-roots: a list of images is converted, and nothing is built")
        imported = _from_list(arguments.path, platform, console)
        built = None
    else:
        imported = _from_root(arguments.path, platform, limits_of(arguments), console)
        built = None if arguments.no_store else _build(imported.text, arguments.out or DEFAULT_OUT, arguments.limit, console)
    _write(target, imported.text, force=arguments.force)
    console.result(_result(str(target), imported, built), _text(str(target), imported, built))
    return 0


def _is_file(path: str) -> bool:
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return False  # the data-root's opener says why
    return not stat.S_ISDIR(mode)


def _from_list(path: str, platform: Platform | None, console: Console) -> Imported:
    with open(path, "rb") as file:
        raw = file.read(imagesmanifest.LIMIT_BYTES + 1)
    label = Path(path).name
    listed, notes = imagesmanifest.parse_list(raw, label)
    for note in notes:
        console.note(f"{label}, {note}")
    images = tuple(
        WrittenImage(
            ref=str(one.ref),
            source=None if one.ref == one.pulled else f"docker://{one.pulled}",
            digest=one.digest,
            comments=(f"{one.pulled.familiar} under the name that {one.why} gives it",) if one.why else (),
        )
        for one in listed
    )
    heading = (
        f"The images of {label}, converted by `shiplap import`.",
        "Without `from:` an image is pulled under its own name: docker://<ref>. `shiplap lock` pins what that is today.",
    )
    return Imported(images, manifest_text(images, heading=heading, platform=None if platform is None else str(platform)))


def _from_root(path: str, platform: Platform | None, limits: Limits, console: Console) -> Imported:
    # A path that goes up means what the kernel makes of it.
    place = str(Path(path).resolve() if ".." in Path(path).parts else Path(path).absolute())
    if ":" in place:
        raise NothingToImport(f"{place}: a source's path ends at its first colon", hint="link to it under a name without colons")
    spec = parse_source(f"docker-root:{place}")
    with dockerroot.open_data_root(place, shown(path), limits) as root:
        label, warning = root.label, root.warning
        found = dockerroot.found(root, limits)
    if warning:
        console.note(warning)
    chosen, skipped, platform = _choose(found, platform, label)
    for why in dict.fromkeys(why for _, why in skipped):
        names = [name for name, other in skipped if other == why]
        more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
        console.note(f"{label}: left out: {', '.join(names[:_MAX_LISTED])}{more} ({why})")
    images = tuple(_entry(one, reference, place) for one in chosen for reference in one.references)
    heading = (
        f"The images of docker-root:{spec.base_name}, made by `shiplap import`.",
        "`config-digest` pins each image by its ID, so `from:` may become any other source of the same image",
        "(docker://, docker-daemon:, docker-archive:, oci:), and the store's bytes stay the same.",
    )
    text = manifest_text(images, heading=heading, platform=str(platform))
    return Imported(images, text, tuple(skipped))


def _choose(found: list[Found], platform: Platform | None, label: str) -> tuple[list[Found], list[tuple[str, str]], Platform]:
    """The images with a tag for the one platform, what is left out, and the platform."""
    skipped: list[tuple[str, str]] = []
    tagged: list[Found] = []
    for one in found:
        if one.references and one.platform.os == "linux":
            tagged.append(one)
        elif one.references:
            skipped.append((one.title, f"for {one.platform}"))
        else:
            known = "known by digest only, which a data-root cannot prove" if one.names else "no tag"
            skipped.append((one.names[0] if one.names else one.config.digest, known))
    platforms = {str(one.platform.normalised): one.platform for one in tagged}
    if platform is None and len(platforms) > 1:
        listed = ", ".join(sorted(platforms))
        raise NothingToImport(f"{label} has images for several platforms: {listed}", hint="a store holds one: choose it with --platform")
    wanted = platform or next(iter(platforms.values()), None)
    chosen = [one for one in tagged if wanted is not None and one.platform.matches(wanted)]
    skipped += [(one.title, f"for {one.platform}") for one in tagged if one not in chosen]
    if not chosen or wanted is None:
        what = f"no image with a tag for {platform}" if platform is not None else "no image with a tag"
        hint = f"build one by its ID: shiplap build NAME=docker-root:PATH:@{found[0].config.digest}" if found else None
        raise NothingToImport(f"{label} has {what}", hint=hint)
    return chosen, skipped, wanted


def _entry(found: Found, reference: str, place: str) -> WrittenImage:
    own = parse_reference(reference)
    digests = [name for name in found.names if "@" in name and name.partition("@")[0] == own.familiar_name]
    return WrittenImage(
        ref=reference,
        source=f"docker-root:{place}:{own.familiar}",
        config_digest=found.config.digest,
        comments=tuple(f"The engine had it as {name}: the registry's digest, if you want to pin that (`digest:`)." for name in digests),
    )


class _Collecting(Console):
    """The same console, except that a result is kept: the build's is a part of this verb's."""

    def __init__(self, console: Console) -> None:
        self.__dict__.update(vars(console))
        self.made: tuple[Mapping[str, object], str] = ({}, "")

    def result(self, data: Mapping[str, object], text: str) -> None:
        self.made = (data, text)


def _build(text: bytes, out: str, limit: list[tuple[str, int]], console: Console) -> tuple[Mapping[str, object], str]:
    """Build the store as `shiplap build -f` does; the manifest appears under its name only when that went well."""
    collecting = _Collecting(console)
    with tempfile.TemporaryDirectory(prefix="shiplap-import-") as folder:
        manifest = Path(folder, DEFAULT_NAME)
        manifest.write_bytes(text)
        arguments = parse(["build", "-f", str(manifest), "-o", out])
        arguments.limit = limit
        from shiplap.cli import build

        build.run(arguments, collecting)
    return collecting.made


def _write(target: Path, text: bytes, *, force: bool) -> None:
    if not force:
        try:
            with target.open("xb") as file:
                file.write(text)
        except FileExistsError:
            raise ManifestExists(f"{target} exists already", hint="overwrite it with --force") from None
        return
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _result(target: str, imported: Imported, built: tuple[Mapping[str, object], str] | None) -> dict[str, object]:
    return {
        "manifest": target,
        "images": [
            {"ref": one.ref, "from": one.source, "digest": one.digest, "config-digest": one.config_digest} for one in imported.images
        ],
        "skipped": [{"image": name, "reason": why} for name, why in imported.skipped],
        "build": None if built is None else dict(built[0]),
    }


def _text(target: str, imported: Imported, built: tuple[Mapping[str, object], str] | None) -> str:
    lines = [f"{target}  {count_text(len(imported.images), 'image')}"]
    if built is not None:
        lines.append(built[1])
    return "\n".join(lines)
