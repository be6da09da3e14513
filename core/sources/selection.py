"""Which of a source's images are meant: by reference, then by platform."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from shiplap.core.errors import Refused
from shiplap.core.image import Image, Layer, RawManifest
from shiplap.core.jsontext import shown
from shiplap.core.platform import Platform, best_match
from shiplap.core.reference import ReferenceInvalid, parse_reference
from shiplap.core.sources.config import ImageConfig
from shiplap.core.sources.spec import Selector

_LISTED_CHARACTERS = 1000
_BY_POSITION = "choose one by its position: SOURCE:@0, SOURCE:@1, …"


class NotInSource(Refused):
    """The reference or the platform asked for is not in the source."""


@dataclass(frozen=True, slots=True)
class Found:
    """One image of a source before anything is chosen; its layers are looked at only when it is.

    ``entry``: position in the source's own list; the platforms of one index share it. ``names``: as the
    source writes them; ``references``: those of them that are full references with a tag. ``declared``:
    the platform that an index gives. ``index_digests``: from the outermost index inwards.
    """

    entry: int
    names: tuple[str, ...]
    references: tuple[str, ...]
    config: ImageConfig
    layers: Callable[[], tuple[Layer, ...]]
    declared: Platform | None = None
    manifest_digest: str | None = None
    index_digests: tuple[str, ...] = ()
    manifest: RawManifest | None = None

    @property
    def platform(self) -> Platform:
        """What the index says, else the config; a variant that one of the two leaves out comes from the other.

        Images for linux/arm/v6 were built for years with configs that name no variant, and some tools
        leave it out of their indexes.
        """
        own, declared = self.config.platform, self.declared
        if declared is None:
            return own
        if (own.os, own.architecture) != (declared.os, declared.architecture):
            return declared
        return Platform(own.os, own.architecture, declared.variant or own.variant)

    @property
    def is_contradictory(self) -> bool:
        """Whether index and config are at odds about the platform."""
        own = self.config.platform
        if not own.variant:
            own = Platform(own.os, own.architecture, self.platform.variant)
        return not own.matches(self.platform)

    @property
    def digests(self) -> tuple[str, ...]:
        return (self.config.digest, *((self.manifest_digest,) if self.manifest_digest else ()), *self.index_digests)

    @property
    def title(self) -> str:
        return _listing((shown(name) for name in self.names), most=3) or f"@{self.entry} (no name, {self.config.digest[:19]})"


def full_references(names: Iterable[str]) -> tuple[str, ...]:
    """The ``names`` that are references with a tag, in full form, without repetition.

    A bare word is left out: in an OCI layout it is as often a tag (``latest``) as a name. Names with a
    digest are left out too: a digest is a promise, not a name.
    """
    found: dict[str, None] = {}
    for name in names:
        if "/" not in name and ":" not in name:
            continue
        try:
            reference = parse_reference(name)
        except ReferenceInvalid:
            continue
        if reference.digest is None:
            found[str(reference)] = None
    return tuple(found)


def choose(found: Sequence[Found], selector: Selector | None, platform: Platform | None, label: str, source: str) -> tuple[Image, ...]:
    """The images that are meant, in the source's order; raises NotInSource with a list of what there is."""
    chosen = _by_platform(_by_selector(found, selector, label), platform, label)
    images: dict[str, Image] = {}
    for one in chosen:
        digest = one.config.digest
        references = _asked_for(one.references, selector)
        if digest in images:  # the same image under a further name
            references = tuple(dict.fromkeys(images[digest].references + references))
            images[digest] = replace(images[digest], references=references)
        else:
            images[digest] = _image(one, references, source)
    if selector is not None and len(images) > 1:
        raise NotInSource(
            f"{selector.text} means {len(images)} images in {label}: {_listing(one.title for one in chosen)}", hint=_BY_POSITION
        )
    _require_own_names(images.values(), label)
    return tuple(images.values())


def _asked_for(references: tuple[str, ...], selector: Selector | None) -> tuple[str, ...]:
    """One tag of several was asked for by name: the others are not."""
    if selector is None or selector.reference is None or selector.reference.tag is None:
        return references
    wanted = str(replace(selector.reference, digest=None))
    return (wanted,) if wanted in references else references


def _require_own_names(images: Iterable[Image], label: str) -> None:
    owners: dict[str, str] = {}
    for image in images:
        for reference in image.references:
            if owners.setdefault(reference, image.config_digest) != image.config_digest:
                raise NotInSource(
                    f"two images in {label} are called {reference}: {owners[reference][:19]} and {image.config_digest[:19]}",
                    hint=_BY_POSITION,
                )


def _image(found: Found, references: tuple[str, ...], source: str) -> Image:
    return Image(
        config=found.config.raw,
        config_digest=found.config.digest,
        layers=found.layers(),
        references=references,
        platform=found.config.platform,
        source=source,
        manifest_digest=found.manifest_digest,
        index_digest=found.index_digests[0] if found.index_digests else None,
        created_epoch=found.config.created_epoch,
        manifest=found.manifest,
    )


def _by_selector(found: Sequence[Found], selector: Selector | None, label: str) -> list[Found]:
    if selector is None:
        return list(found)
    if selector.position is not None:
        chosen = [one for one in found if one.entry == selector.position]
    else:
        chosen = list(found)
        if selector.reference is not None or selector.digest is None:
            chosen = [one for one in chosen if selector.matches_name(one.names, one.references)]
        if selector.digest is not None:
            chosen = [one for one in chosen if selector.digest in one.digests]
    if not chosen:
        raise NotInSource(f"{label} has no image {selector.text}; it has {_listing(one.title for one in found)}")
    return chosen


def best_of(available: Sequence[Platform | None], platform: Platform | None, label: str) -> int:
    """Position of the best of an index's platforms (None: a descriptor that says none) for ``platform``.

    ``platform`` None means the only one for linux. Raises NotInSource with a list of what there is.
    """
    platform = _wanted([one for one in available if one is not None], platform, label)
    position = best_match(platform, available)
    if position is None:
        have = [one for one in available if one is not None]
        raise NotInSource(f"{label} has no image for {platform}; it has {_platforms(have)}", hint=_other_platform(platform, have))
    return position


def _wanted(available: Iterable[Platform], platform: Platform | None, label: str) -> Platform:
    """The platform to look for; raises NotInSource when that is not clear."""
    if platform is None:
        there = {one.normalised: one for one in available}
        linux = [known for known in there if known.os == "linux"]
        if len(linux) != 1:
            what = "images for several platforms" if linux else "no image for linux"
            raise NotInSource(
                f"{label} has {what}: {_platforms(there[known] for known in sorted(there))}",
                hint="say which one: --platform os/arch, or platform: in the manifest" if linux else None,
            )
        return linux[0]
    if platform.os != "linux":
        raise NotInSource(f"{platform} is not a platform for shiplap", hint="only images for linux can be used")
    return platform


def _by_platform(found: Sequence[Found], platform: Platform | None, label: str) -> list[Found]:
    platform = _wanted([one.platform for one in found], platform, label)
    # Of one entry's platforms, and of entries that share their names, the best; of equals in one entry the first,
    # as for every engine.
    ranks = [(one, _rank(one, platform)) for one in found]
    best: dict[tuple[str, ...], int] = {}
    for one, rank in ranks:
        if rank is not None:
            best[one.names] = min(rank, best.get(one.names, rank))
    fitting = [one for one, rank in ranks if rank is not None and rank == best[one.names]]
    chosen = list({one.entry: one for one in reversed(fitting)}.values())[::-1]
    for one in found:
        if one.names not in best:
            have = [other.platform for other in found if other.names == one.names]
            which = f"{one.title} in {label}" if one.names or len(found) > 1 else label  # a registry's image has no name inside
            raise NotInSource(f"{which} is not for {platform}; it is for {_platforms(have)}", hint=_other_platform(platform, have))
    for one in chosen:
        if one.is_contradictory:
            raise NotInSource(
                f"{one.title} in {label}: the index says {shown(str(one.platform))}, the image itself {shown(str(one.config.platform))}"
            )
    return chosen


def _rank(one: Found, wanted: Platform) -> int | None:
    """How well ``one`` suits, 0 is best.

    A config that names no variant suits every variant when no index says more, after those that name theirs: the
    configs of many images for linux/arm/v6 are like that, and Docker (OnlyPlatformWithFallback) sees it so too.
    """
    accepted, platform = wanted.accepted, one.platform
    if platform.normalised in accepted:
        return accepted.index(platform.normalised)
    unknown = one.declared is None and not platform.variant
    return len(accepted) if unknown and wanted.accepts(replace(platform, variant=wanted.variant)) else None


def _platforms(available: Iterable[Platform]) -> str:
    return _listing(shown(str(one)) for one in available)


def _other_platform(wanted: Platform, available: Iterable[Platform]) -> str:
    """What to do when nothing suits; engines would take another architecture that the processor runs as well."""
    runs_too = {"amd64": "386", "arm64": "arm"}.get(wanted.normalised.architecture)
    for one in available:
        if (one.normalised.os, one.normalised.architecture) == ("linux", runs_too):
            return f"{wanted.normalised.architecture} runs {runs_too} programs too, but it is another platform: ask for {shown(str(one))}"
    return f"take the image for {shown(str(wanted))}, or ask for a platform that it is for: --platform, or platform: in the manifest"


def _listing(titles: Iterable[str], most: int = 20) -> str:
    unique = list(dict.fromkeys(titles))
    fitting = 0
    length = 0
    for title in unique[:most]:
        length += len(title)
        if fitting and length > _LISTED_CHARACTERS:
            break
        fitting += 1
    more = f" and {len(unique) - fitting} more" if len(unique) > fitting else ""
    return ", ".join(unique[:fitting]) + more
