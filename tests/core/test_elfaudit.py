"""The ELF audit of images: what counts as visible, what is allowed, what is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from archiveimages import image
from elffiles import REL, program
from images import directory, file, hardlink, symlink
from layertar import TarItem, build, diff_id, pax_item
from memorytar import as_file, unpacked
from shiplap.core import elfaudit
from shiplap.core.elfaudit import AuditImpossible, ElfAudit
from shiplap.core.elfreport import Allowances, ElfReport, ForeignElf
from shiplap.core.entries import FileSlice
from shiplap.core.platform import parse_platform
from shiplap.core.reference import parse_reference
from shiplap.core.store.model import StoredImage, merge

OURS = program("arm64", interpreter=b"/lib/ld-linux-aarch64.so.1")
FOREIGN = program("amd64", interpreter=b"/lib64/ld-linux-x86-64.so.2")
Take = Callable[[ElfAudit, str, FileSlice], None]


def as_tree(audit: ElfAudit, digest: str, tar: FileSlice) -> None:
    audit.tree(digest, unpacked(tar)[0], tar)


def as_tar(audit: ElfAudit, digest: str, tar: FileSlice) -> None:
    audit.tar(digest, tar, "app:1, layer 0", 100_000)


def as_entries(audit: ElfAudit, digest: str, tar: FileSlice) -> None:
    audit.entries(digest, unpacked(tar)[0].stream(b"layers/x", tar), b"layers/x")


FORMS = {"tree": as_tree, "tar": as_tar, "entries": as_entries}


@pytest.fixture(params=sorted(FORMS))
def take(request: pytest.FixtureRequest) -> Take:
    """How the audit meets a layer: while a store is built, while an archive is written, in a finished store."""
    return FORMS[request.param]


def elf(name: str | bytes, data: bytes = FOREIGN, mode: int = 0o755, **fields: Any) -> TarItem:
    return file(name, data, mode=mode, **fields)


def stored(layers: Sequence[bytes], name: str = "app:1", allow: Sequence[str] = ()) -> StoredImage:
    one = replace(image(layers), references=(str(parse_reference(name)),))
    return StoredImage(one, (parse_reference(name),), allow_foreign_elf=tuple(allow))


def audited(
    images: Sequence[StoredImage], layers: Sequence[bytes], take: Take, *, allowed: Sequence[str] = (), platform: str = "linux/arm64"
) -> ElfReport:
    audit = ElfAudit(images, parse_platform(platform), allowed)
    # The order of the layers must not matter: an archive has them by digest.
    for tar in reversed(layers):
        with as_file(tar, 11) as one:
            take(audit, diff_id(tar), one)
    return audit.finish()


def foreign(report: ElfReport) -> list[tuple[int, str]]:
    return [(one.layer, one.shown) for image in report.images for one in image.foreign]


LINKED = [elf("a"), hardlink("b", "a", mode=0o755)]
# layers, and what of them is foreign and visible
VISIBLE: dict[str, tuple[list[list[Any]], list[tuple[int, str]]]] = {
    "a program": ([[elf("bin/a"), elf("bin/b", OURS)]], [(0, "/bin/a")]),
    "without an executable bit": ([[elf("a", mode=0o644), elf("b", mode=0o010)]], [(0, "/b")]),
    "an object": ([[elf("a", program("amd64", type=REL))]], []),
    "a script": ([[elf("a", b"#!/bin/sh\n" * 10)]], []),
    "in an upper layer": ([[elf("a", OURS)], [elf("b")]], [(1, "/b")]),
    "replaced": ([[elf("a")], [elf("a", OURS)]], []),
    "replaced by a foreign one": ([[elf("a", OURS)], [elf("a")]], [(1, "/a")]),
    "replaced by text": ([[elf("a")], [file("a", b"text")]], []),
    "replaced by a directory": ([[elf("a")], [directory("a")]], []),
    "replaced by an implied directory": ([[elf("a")], [file("a/b/c", b"")]], []),
    "replaced by a link": ([[elf("a")], [symlink("a", "b")]], []),
    "deleted": ([[elf("d/a"), elf("d/b")], [file("d/.wh.a")]], [(0, "/d/b")]),
    "deleted with its directory": ([[elf("d/e/a")], [file(".wh.d")]], []),
    "deleted and made again": ([[elf("a")], [file(".wh.a")], [elf("a")]], [(2, "/a")]),
    "below an opaque directory": (
        [[elf("d/a"), elf("e/a")], [directory("d"), file("d/.wh..wh..opq"), elf("d/b")]],
        [(0, "/e/a"), (1, "/d/b")],
    ),
    "below a directory that became a file": ([[elf("d/a")], [file("d", b"")], [directory("d")]], []),
    "below a directory that became a link": ([[elf("lib/a"), elf("usr/lib/b")], [symlink("lib", "usr/lib")]], [(0, "/usr/lib/b")]),
    "below a merged directory": ([[elf("d/a")], [directory("d"), file("d/x", b"")]], [(0, "/d/a")]),
    "below another directory of like name": ([[elf("dd/a")], [file(".wh.d")]], [(0, "/dd/a")]),
    "several names count once": ([LINKED], [(0, "/a")]),
    "one of several names deleted": ([LINKED, [file(".wh.a")]], [(0, "/b")]),
    "all names deleted": ([LINKED, [file(".wh.a"), file(".wh.b")]], []),
    "with a long name": ([[elf("n" * 150 + "/" + "m" * 120)]], [(0, "/" + "n" * 150 + "/" + "m" * 120)]),
    "with a leading slash and dots": ([[elf("./a"), elf("/b"), elf("c/../d")], [file("./.wh.a")]], [(0, "/b"), (0, "/d")]),
    "with a name in pax form": ([[pax_item({"path": "other"}).raw, elf("x")]], [(0, "/other")]),
    "the same layer twice": ([[elf("a")], [file("b", b"")], [elf("a")]], [(2, "/a")]),
    "an opaque mark in the root": ([[elf("a")], [file(".wh..wh..opq")]], [(0, "/a")]),
    "names that are no text": ([[elf(b"\xff\x1b")]], [(0, "/\\xff\\x1b")]),
}


@pytest.mark.parametrize("name", VISIBLE)
def test_only_what_is_visible_in_the_final_image_counts(name: str, take: Take) -> None:
    contents, expected = VISIBLE[name]
    layers = [build(items) for items in contents]
    assert foreign(audited([stored(layers)], layers, take)) == expected


def test_an_image_that_ends_below_sees_what_another_hides(take: Take) -> None:
    base, top = build([elf("a"), elf("b", OURS)]), build([file(".wh.a"), elf("c", OURS)])
    report = audited([stored([base, top], "two:1"), stored([base], "one:1")], [base, top], take)
    assert [image.counted for image in report.images] == [(("arm64", 2),), (("amd64", 1), ("arm64", 1))]
    assert [len(image.foreign) for image in report.images] == [0, 1]


def test_it_says_where_what_and_what_to_write() -> None:
    layers = [build([elf("bin/ok", OURS), elf("bin/sh", OURS)]), build([elf("opt/x86 tool"), elf("opt/y")])]
    report = audited([stored(layers)], layers, as_tree)
    with pytest.raises(ForeignElf) as caught:
        report.require_fit()
    layer = f"docker.io/library/app:1, layer 1 ({diff_id(layers[1])[:19]})"
    assert caught.value.message.splitlines() == [
        "2 programs do not run on linux/arm64",
        f"  {layer}: /opt/x86 tool is amd64 (64-bit little-endian), expected is arm64 (64-bit little-endian)",
        f"  {layer}: /opt/y is amd64 (64-bit little-endian), expected is arm64 (64-bit little-endian)",
    ]
    assert (caught.value.hint or "").splitlines() == [
        "take the image for the right platform; or, where such programs are meant to be there, write into shiplap.yaml",
        "at docker.io/library/app:1:",
        "    allow-foreign-elf:",
        '      - "/opt/x86 tool"',
        "      - /opt/y",
        "or build with --allow-foreign-elf '/opt/x86 tool' --allow-foreign-elf /opt/y",
    ]


def test_32_bit_programs_in_a_64_bit_image_say_what_they_would_need() -> None:
    layers = [build([elf("a", program("amd64")), elf("b", program("386"))])]
    with pytest.raises(ForeignElf, match=r"1 program does not run on linux/amd64\n.*is 386 .*; it needs a kernel with IA32 emulation"):
        audited([stored(layers)], layers, as_tree, platform="linux/amd64").require_fit()


def test_of_many_the_first_are_named_and_all_are_counted() -> None:
    layers = [build([elf(f"usr/bin/{number:03}") for number in range(25)] + [elf("usr/lib/ours", OURS)])]
    with pytest.raises(ForeignElf) as caught:
        audited([stored(layers)], layers, as_tree).require_fit()
    lines = caught.value.message.splitlines()
    assert lines[0] == "25 programs do not run on linux/arm64" and lines[-1] == "  and 15 more" and len(lines) == 12
    hint = caught.value.hint or ""
    assert hint.startswith("docker.io/library/app:1 seems to be for another platform (25 of its 26 programs)\n")
    assert "      - /usr/bin\n" in hint and hint.endswith("--allow-foreign-elf /usr/bin")


@pytest.mark.parametrize("where", ["the image", "the command line"])
@pytest.mark.parametrize("allowance", ["/opt/a", "/opt/a/", "/opt", "/", "//opt/./a", "/\\xff"])
def test_a_path_or_a_folder_can_be_allowed(where: str, allowance: str, take: Take) -> None:
    layers = [build([elf(b"\xff" if "x" in allowance else "opt/a"), elf("b", OURS)])]
    own, option = ([allowance], []) if where == "the image" else ([], [allowance])
    report = audited([stored(layers, allow=own)], layers, take, allowed=option)
    report.require_fit()
    assert report.notes == ()
    assert [one.allowed for one in report.images[0].foreign] == [True]


@pytest.mark.parametrize("allowance", ["/opt/b", "/opt/aa", "/op", "/opt/a/x", "/usr"])
def test_an_allowance_for_something_else_is_none_and_is_noted(allowance: str, take: Take) -> None:
    layers = [build([elf("opt/a")])]
    report = audited([stored(layers, allow=[allowance])], layers, take)
    with pytest.raises(ForeignElf):
        report.require_fit()
    assert report.notes == (f"docker.io/library/app:1: `allow-foreign-elf: {allowance}` matches no foreign program",)
    report = audited([stored(layers, allow=["/opt/a"])], layers, take, allowed=[allowance])
    report.require_fit()
    assert report.notes == (f"--allow-foreign-elf {allowance} matches no foreign program",)


def test_an_allowance_that_another_makes_superfluous_is_in_use() -> None:
    layers = [build([elf("opt/a")])]
    report = audited([stored(layers, allow=["/opt", "/opt/a"])], layers, as_tree, allowed=["/opt"])
    assert report.notes == ()


def test_each_visible_name_of_a_file_has_to_be_allowed() -> None:
    layers = [build([elf("a"), hardlink("opt/b", "a", mode=0o755)])]
    report = audited([stored(layers, allow=["/a"])], layers, as_tree)
    with pytest.raises(ForeignElf, match="/opt/b is amd64"):
        report.require_fit()
    audited([stored(layers, allow=["/a", "/opt"])], layers, as_tree).require_fit()


def test_an_allowance_of_one_image_is_none_of_another() -> None:
    base, top = build([elf("a")]), build([file("x", b"")])
    report = audited([stored([base, top], "two:1", ["/a"]), stored([base], "one:1")], [base, top], as_tree)
    with pytest.raises(ForeignElf, match=r"^1 program does not run"):
        report.require_fit()


def test_allowances_of_one_image_asked_for_twice_come_together() -> None:
    layers = [build([elf("a"), elf("b")])]
    (merged,) = merge([stored(layers, "one:1", ["/a"]), stored(layers, "two:1", ["/b", "/a"])])
    assert merged.allow_foreign_elf == ("/a", "/b") and len(merged.references) == 2


def test_a_file_that_only_begins_like_elf_is_noted(take: Take) -> None:
    layers = [build([elf("a", FOREIGN[:60] + bytes(10)), elf("b", OURS)])]
    report = audited([stored(layers)], layers, take)
    report.require_fit()
    assert report.notes == ("docker.io/library/app:1: files that begin like ELF and cannot be read, 1 in all, the first is /a",)
    assert report.images[0].to_data()["unreadable"] == 1


def test_a_platform_of_no_known_architecture_is_noted_and_nothing_is_refused() -> None:
    layers = [build([elf("a")])]
    report = audited([stored(layers)], layers, as_tree, platform="linux/hexagon")
    report.require_fit()
    assert report.notes == ("programs cannot be held against the platform linux/hexagon: its architecture is not known",)
    assert report.images[0].counted == (("amd64", 1),)


def test_a_tar_that_cannot_be_read_is_looked_at_as_far_as_it_goes() -> None:
    whole = build([elf("a"), file("x", b"x" * 2000), elf("b")])
    cut = whole[: whole.index(b"x" * 100) + 600]
    report = audited([stored([cut])], [cut], as_tar)
    assert foreign(report) == [(0, "/a")]
    assert report.notes[0].endswith("the rest of the layer was not looked at for foreign programs")
    audit = ElfAudit([stored([whole])], parse_platform("linux/arm64"))
    with as_file(whole) as tar:
        audit.tar(diff_id(whole), tar, "app:1, layer 0", 1)
    assert audit.finish().notes[0].startswith("app:1, layer 0: it has more than 1 entries")


def test_memory_is_bounded(take: Take, monkeypatch: pytest.MonkeyPatch) -> None:
    base, top = build([elf(f"{number}") for number in range(6)]), build([file(f"x{number}", b"") for number in range(30)])
    monkeypatch.setattr(elfaudit, "PROGRAMS_MAX", 5)
    with pytest.raises(AuditImpossible):
        audited([stored([base, top])], [base], take)
    monkeypatch.setattr(elfaudit, "PROGRAMS_MAX", 6)
    monkeypatch.setattr(elfaudit, "ENTRIES_MAX", 20)
    with pytest.raises(AuditImpossible):
        audited([stored([base, top])], [top], take)


def test_the_report_as_data_names_a_hundred_at_most() -> None:
    layers = [build([elf(f"{number:03}") for number in range(120)] + [elf("ours", OURS)])]
    data = audited([stored(layers, allow=["/000"])], layers, as_tree).to_data()
    assert data["platform"] == "linux/arm64"
    (one,) = data["images"]  # type: ignore[misc]
    assert (one["programs"], one["foreign"], one["unreadable"], len(one["foreign-programs"])) == ({"amd64": 120, "arm64": 1}, 120, 0, 100)
    assert one["foreign-programs"][0] == {
        "path": "/000",
        "layer": 0,
        "diffID": diff_id(layers[0]),
        "found": "amd64 (64-bit little-endian)",
        "allowed": True,
    }


def test_an_allowance_is_a_path_not_a_pattern() -> None:
    allowances = Allowances(["/opt/*", "/a"])
    assert not allowances.allows(b"opt/a") and allowances.allows(b"a") and allowances.allows(b"a/b")
    assert allowances.unused() == ["/opt/*"]
