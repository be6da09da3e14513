"""``docker-daemon:`` and ``podman:``: images of an engine that runs, through Docker's API.

The engine writes the image as ``docker save`` does, and that archive is read as ``docker-archive:`` reads files: what
proves an image is in the archive. What the engine merely says (RepoDigests) proves nothing and is not used. The image is asked for
by its ID, so that nobody can move the name meanwhile; its names are those of the engine that fit what was asked.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from shiplap.core.blobs import SourceInvalidContent
from shiplap.core.engine.client import Engine, EngineImage, connected
from shiplap.core.engine.endpoint import Endpoint, docker_endpoint, podman_endpoint
from shiplap.core.image import Image
from shiplap.core.jsontext import shown
from shiplap.core.limits import Limits
from shiplap.core.platform import Platform
from shiplap.core.reference import Reference, ReferenceInvalid, parse_reference
from shiplap.core.sources import dockerarchive
from shiplap.core.sources.access import Access, OfflineRefused
from shiplap.core.sources.outertar import spooled_tar
from shiplap.core.sources.rewritten import explain
from shiplap.core.sources.selection import Found, NotInSource, choose
from shiplap.core.sources.spec import SourceSpec

_FULL_IDENTIFIER = re.compile(r"(?:sha256:)?[a-f0-9]{64}")
# Beside the layers: JSON, and what a tar adds to them.
_METADATA_BYTES = 64 << 20
_MAX_NAMES = 10
# Whether a name of the engine's is the one that was asked for.
_Rule = Callable[[Reference, Reference], bool]


class ImageChanged(SourceInvalidContent):
    """The engine gave another image than it had announced."""


@contextmanager
def open_docker(spec: SourceSpec, *, platform: Platform | None, limits: Limits, access: Access) -> Iterator[tuple[Image, ...]]:
    """Opener of ``docker-daemon:NAME[:TAG]``, ``docker-daemon:NAME@sha256:…`` and ``docker-daemon:sha256:ID``."""
    _require_online(spec, access)
    with _opened(spec, docker_endpoint(access.environment), platform, limits, access) as images:
        yield images


@contextmanager
def open_podman(spec: SourceSpec, *, platform: Platform | None, limits: Limits, access: Access) -> Iterator[tuple[Image, ...]]:
    """Opener of ``podman:NAME…``, as for Docker; a short name is what Podman takes it for."""
    _require_online(spec, access)
    with _opened(spec, podman_endpoint(access.environment), platform, limits, access) as images:
        yield images


def _require_online(spec: SourceSpec, access: Access) -> None:
    if access.offline:
        raise OfflineRefused(
            f"{spec.public_text}: an engine may not be asked with --offline",
            hint="run `shiplap fetch` before, or save the image to a file and write docker-archive:FILE",
        )


@contextmanager
def _opened(spec: SourceSpec, endpoint: Endpoint, platform: Platform | None, limits: Limits, access: Access) -> Iterator[tuple[Image, ...]]:
    wanted = _asked(spec)
    label = spec.public_text
    with connected(endpoint) as engine, ExitStack() as stack:
        image = _find(engine, spec, wanted)
        with access.progress.task(f"export {label}", image.size_bytes or None) as task:
            chunks = _counted(engine.export(image.identifier), task.advance)
            limit_bytes = limits.layer_bytes * max(image.layers, 1) + _METADATA_BYTES
            archive = stack.enter_context(spooled_tar(chunks, label, limits, limit_bytes=limit_bytes))
        found = [replace(one, names=(), references=()) for one in dockerarchive.found(archive, limits)]
        images = choose(found, None, platform, label, label)
        _require_announced(image, found, images, engine)
        only = replace(images[0], references=_names(wanted, image))
        if only.config_digest == image.identifier:
            # Newer engines make up a manifest for what they save; only containerd's store has those of the registry.
            only = replace(only, manifest_digest=None, index_digest=None, manifest=None)
        yield (only,)


def _counted(chunks: Iterator[bytes], advance: Callable[[int], object]) -> Iterator[bytes]:
    for piece in chunks:
        advance(len(piece))
        yield piece


def _asked(spec: SourceSpec) -> Reference | None:
    """The name that was asked for, None for an ID (or the beginning of one, which may also be a name: the engine decides)."""
    if _FULL_IDENTIFIER.fullmatch(spec.location):
        return None
    return parse_reference(spec.location)


def _find(engine: Engine, spec: SourceSpec, wanted: Reference | None) -> EngineImage:
    image = engine.inspect(spec.location)
    if image is None and wanted is not None and wanted.digest is not None:
        # NAME@sha256:ID, where the digest is no manifest's: the image with that ID, if it has that name.
        image = engine.inspect(wanted.digest)
        if image is not None and not _names(wanted, image, (_same_name, _local_name)):
            image = None
    if image is None:
        raise _absent(engine, spec)
    return image


def _absent(engine: Engine, spec: SourceSpec) -> NotInSource:
    there = engine.tags()
    close = [one for one in there if _last_name(one) == _last_name(spec.location)]
    close += [one for one in difflib.get_close_matches(spec.location, there, 3, 0.6) if one not in close]
    if close:
        hint = f"did you mean {' or '.join(shown(one) for one in close[:3])}?"
    elif there:
        hint = f"it has {', '.join(shown(one) for one in there[:_MAX_NAMES])}" + (" …" if len(there) > _MAX_NAMES else "")
    else:
        hint = f"it has none with a name: {engine.name.lower()} pull {shown(spec.location)}"
    return NotInSource(f"{engine.title} has no image {shown(spec.location)}", hint=hint)


def _last_name(text: str) -> str:
    """The last component of a name: what people remember of it."""
    return text.rpartition("/")[2].partition("@")[0].partition(":")[0]


def _names(wanted: Reference | None, image: EngineImage, rules: Sequence[_Rule] | None = None) -> tuple[str, ...]:
    """Those of the engine's names that were asked for, in full form; none for an ID.

    With a tag that one; with a digest alone all tags of that name. Podman finds ``app`` as ``localhost/app`` and in the
    registries that its short-name rules know, so names that end alike count where none is equal.
    """
    if wanted is None:
        return ()
    tags: list[Reference] = []
    for text in image.tags:
        try:
            tags.append(parse_reference(text, default_tag=False))
        except ReferenceInvalid:
            continue  # "<none>:<none>" of old engines
    for same in rules or (_same_name, _local_name, _ends_alike):
        found = sorted({str(one) for one in tags if same(one, wanted) and (wanted.tag is None or one.tag == wanted.tag)})
        if found:
            return tuple(found)
    return ()


def _same_name(one: Reference, wanted: Reference) -> bool:
    return one.name == wanted.name


def _local_name(one: Reference, wanted: Reference) -> bool:
    return one.name == f"localhost/{wanted.familiar_name}"


def _ends_alike(one: Reference, wanted: Reference) -> bool:
    return wanted.domain == "docker.io" and one.name.endswith(f"/{wanted.familiar_name}")


def _require_announced(announced: EngineImage, found: list[Found], images: tuple[Image, ...], engine: Engine) -> None:
    """The engine's ID is in the archive: as a config's digest, or as a manifest's or index's, which the archive proves."""
    if len(images) != 1:
        raise ImageChanged(f"{engine.title} gave {len(images)} images for {announced.identifier[:19]}")
    known = {digest for one in found if one.config.digest == images[0].config_digest for digest in one.digests}
    if announced.identifier not in known:
        raise ImageChanged(
            f"{engine.title} gave another image than it had announced: {explain(announced.identifier, images[0])}",
            hint="the engine converts images when it saves them: take the image from where it came from (docker://, oci:)",
        )
