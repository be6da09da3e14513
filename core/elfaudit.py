"""The ELF audit: do the programs in the images run on the declared platform?

A program is a regular file with an executable bit that is an ELF executable or library (ET_EXEC, ET_DYN). Only what is visible in
the final image counts: not what a higher layer deletes, replaces or hides. A file with several names counts once. The layers
are looked at while they are read anyway; in which order they come does not matter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from shiplap.core.elf import Elf, UnreadableElf, read_elf
from shiplap.core.elfplatform import Expectation, architecture_of, description, expectation, misfit
from shiplap.core.elfreport import Allowances, ElfReport, ForeignProgram, ImagePrograms
from shiplap.core.entries import Content, Entry, FileSlice, Kind, printable
from shiplap.core.errors import Refused
from shiplap.core.layer.sight import Hidden, TarReading, hashes_of, is_hidden
from shiplap.core.layer.tree import OPAQUE, LayerTree
from shiplap.core.platform import Platform
from shiplap.core.store.model import StoredImage
from shiplap.core.tar.reader import TarCorrupt
from shiplap.core.tar.skim import Skimmed

PROGRAMS_MAX = 1_000_000
"""Programs that are remembered, over all layers."""

ENTRIES_MAX = 32_000_000
"""Paths of upper layers that are remembered, eight bytes each."""

_EXECUTABLE = 0o111
_SMALLEST_ELF_BYTES = 52


class AuditImpossible(Refused):
    """More programs or files than any device has."""


@dataclass(frozen=True, slots=True)
class _Program:
    """One file with all its names in its layer. ``elf`` None: it begins like ELF, and cannot be read."""

    names: tuple[bytes, ...]
    elf: Elf | None


@dataclass(frozen=True, slots=True)
class _Layer:
    programs: tuple[_Program, ...]
    hidden: Hidden


class ElfAudit:
    """Takes each layer once (``tree``, ``tar`` or ``entries``, whichever form it has), then ``finish`` judges the images.

    ``allowed``: allowances of the command line, for all images; the images' own are in StoredImage.
    """

    def __init__(self, images: Sequence[StoredImage], platform: Platform, allowed: Iterable[str] = ()) -> None:
        self._images = tuple(images)
        self._platform = platform
        self._allowed = tuple(allowed)
        self._expected = expectation(platform)
        self._layers: dict[str, _Layer] = {}
        self._not_audited: list[str] = []
        self._program_count = self._hidden_count = 0
        # A base layer has nothing below it to hide.
        self._uppers = {layer.diff_id for stored in self._images for layer in stored.image.layers if layer.index}

    def tree(self, diff_id: str, tree: LayerTree, tar: FileSlice) -> None:
        """Look at a layer as the layer rules made it of ``tar``."""
        if not self._wants(diff_id):
            return
        hidden = Hidden() if diff_id in self._uppers else None
        names: dict[int, list[bytes]] = {}
        offsets: dict[int, tuple[int, int]] = {}
        for path, inode in tree.walk():
            if hidden is not None:
                merges = inode.kind is Kind.DIRECTORY and not (inode.xattrs and OPAQUE[0] in inode.xattrs)
                hidden.add(path, merges=merges)
            if inode.kind is Kind.REGULAR and inode.mode & _EXECUTABLE and inode.size_bytes >= _SMALLEST_ELF_BYTES:
                names.setdefault(id(inode), []).append(path)
                offsets[id(inode)] = (inode.offset, inode.size_bytes)
        files = ((names[key], FileSlice(tar.descriptor, tar.offset + at, size, tar.name)) for key, (at, size) in offsets.items())
        self._take(diff_id, files, hidden)

    def tar(self, diff_id: str, tar: FileSlice, where: str, entries_max: int) -> None:
        """Look at a layer of which only the tar is there. One that cannot be read is noted: it is for the engine to refuse."""
        if not self._wants(diff_id):
            return
        reading = TarReading(tar, diff_id in self._uppers, _wants)
        try:
            reading.read(where, entries_max)
        except TarCorrupt as error:
            self._not_audited.append(f"{error.message}; the rest of the layer was not looked at for foreign programs")
        self._take(diff_id, reading.files.values(), reading.hidden)

    def entries(self, diff_id: str, entries: Iterable[Entry], below: bytes) -> None:
        """Look at a layer as entries of a finished store, at and below the path ``below``."""
        if not self._wants(diff_id):
            return
        hidden = Hidden() if diff_id in self._uppers else None
        cut = len(below) + 1
        files: dict[bytes, tuple[list[bytes], Content]] = {}
        for entry in entries:
            path = entry.path[cut:]
            if not path:
                continue
            if hidden is not None:
                merges = entry.kind is Kind.DIRECTORY and not any(name == OPAQUE[0] for name, _ in entry.xattrs)
                hidden.add(path, merges=merges)
            if entry.kind is Kind.HARDLINK:
                if entry.link in files:
                    files[entry.link][0].append(path)
            elif entry.content is not None and entry.mode & _EXECUTABLE and entry.content.size_bytes >= _SMALLEST_ELF_BYTES:
                files[entry.path] = ([path], entry.content)
        self._take(diff_id, files.values(), hidden)

    def conclude(self, note: Callable[[str], object]) -> ElfReport:
        """``finish``, with the notes said; raises ForeignElf when there is a foreign program that nothing allows."""
        report = self.finish()
        for message in report.notes:
            note(message)
        report.require_fit()
        return report

    def finish(self) -> ElfReport:
        """The judgement of all images, whose layers have all been taken."""
        expected = self._expected
        notes = list(self._not_audited)
        if expected is None:
            notes.append(f"programs cannot be held against the platform {self._platform}: its architecture is not known")
        command_line = Allowances(self._allowed)
        interesting = hashes_of(name for layer in self._layers.values() for program in layer.programs for name in program.names)
        hides = {diff_id: layer.hidden.among(interesting) for diff_id, layer in self._layers.items()}
        images = []
        for stored in self._images:
            own = Allowances(stored.allow_foreign_elf)
            images.append(self._image(stored, expected, (own, command_line), hides))
            notes += [f"{stored.image.label}: `allow-foreign-elf: {text}` matches no foreign program" for text in own.unused()]
            if images[-1].unreadable:
                count, first = len(images[-1].unreadable), printable(images[-1].unreadable[0])
                notes.append(f"{stored.image.label}: files that begin like ELF and cannot be read, {count} in all, the first is /{first}")
        notes += [f"--allow-foreign-elf {text} matches no foreign program" for text in command_line.unused()]
        return ElfReport(self._platform, expected, tuple(images), tuple(notes))

    def _wants(self, diff_id: str) -> bool:
        return diff_id not in self._layers

    def _take(self, diff_id: str, files: Iterable[tuple[list[bytes], Content]], hidden: Hidden | None) -> None:
        programs = []
        for names, content in files:
            elf = read_elf(content)
            if isinstance(elf, UnreadableElf):
                programs.append(_Program(tuple(names), None))
            elif elf is not None and elf.is_program:
                programs.append(_Program(tuple(names), elf))
        self._program_count += len(programs)
        self._hidden_count += len(hidden or ())
        if self._program_count > PROGRAMS_MAX or self._hidden_count > ENTRIES_MAX:
            raise AuditImpossible(f"the images hold more than {PROGRAMS_MAX} programs, or {ENTRIES_MAX} files in upper layers")
        self._layers[diff_id] = _Layer(tuple(programs), hidden or Hidden())

    def _image(
        self,
        stored: StoredImage,
        expected: Expectation | None,
        allowances: Sequence[Allowances],
        hides: dict[str, tuple[set[int], set[int]]],
    ) -> ImagePrograms:
        counted: Counter[str] = Counter()
        foreign: list[ForeignProgram] = []
        unreadable: list[bytes] = []
        hidden_all: set[int] = set()
        hidden_files: set[int] = set()
        for layer in reversed(stored.image.layers):
            for program in self._layers[layer.diff_id].programs:
                visible = [name for name in program.names if not is_hidden(name, hidden_all, hidden_files)]
                if not visible:
                    continue
                if program.elf is None:
                    unreadable.append(visible[0])
                    continue
                counted[architecture_of(program.elf)] += 1
                reason = misfit(program.elf, expected, visible[0]) if expected else None
                if reason is not None:
                    # No short circuit: an allowance that the other one makes superfluous is still in use.
                    open_ = [name for name in visible if not sum(allowance.allows(name) for allowance in allowances)]
                    found = ForeignProgram(
                        (open_ or visible)[0], layer.index, layer.diff_id, description(program.elf), reason, allowed=not open_
                    )
                    foreign.append(found)
            hides_all, hides_files = hides[layer.diff_id]
            hidden_all |= hides_all
            hidden_files |= hides_files
        foreign.sort(key=lambda one: (one.layer, one.path))
        return ImagePrograms(
            stored.image.label, stored.image.config_digest, tuple(sorted(counted.items())), tuple(foreign), tuple(sorted(unreadable))
        )


def _wants(header: Skimmed) -> bool:
    return bool(header.mode & _EXECUTABLE) and header.data_bytes >= _SMALLEST_ELF_BYTES
