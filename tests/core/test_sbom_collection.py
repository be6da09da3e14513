"""Which packages an image has: what its own package databases say, as far as they are visible in the final image."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from archiveimages import image
from images import directory, file, hardlink, symlink
from layertar import TarItem, build, diff_id, item
from memorytar import as_file, unpacked
from shiplap.core.entries import FileSlice
from shiplap.core.reference import parse_reference
from shiplap.core.sbom import collection
from shiplap.core.sbom.collection import CollectionImpossible, PackageCollection
from shiplap.core.sbom.distributions import debian_packages
from shiplap.core.sbom.software import ImageContents
from shiplap.core.store.model import StoredImage

Take = Callable[[PackageCollection, str, FileSlice], None]


def as_tree(packages: PackageCollection, digest: str, tar: FileSlice) -> None:
    packages.tree(digest, unpacked(tar)[0], tar)


def as_tar(packages: PackageCollection, digest: str, tar: FileSlice) -> None:
    packages.tar(digest, tar, "app:1, layer 0", 100_000)


FORMS = {"tree": as_tree, "tar": as_tar}


@pytest.fixture(params=sorted(FORMS))
def take(request: pytest.FixtureRequest) -> Take:
    """How a layer comes along: while a store is built, while an archive is written."""
    return FORMS[request.param]


def stored(layers: Sequence[bytes], name: str = "app:1") -> StoredImage:
    return StoredImage(replace(image(layers), references=(name,)), (parse_reference(name),))


def collected(images: Sequence[StoredImage], layers: Sequence[bytes], take: Take) -> list[ImageContents]:
    packages = PackageCollection(images)
    # The order of the layers must not matter: an archive has them by digest.
    for tar in reversed(layers):
        with as_file(tar, 11) as one:
            take(packages, diff_id(tar), one)
    return [packages.contents(one) for one in images]


def contents(layers: Sequence[Sequence[TarItem]], take: Take) -> ImageContents:
    tars = [build(list(one)) for one in layers]
    return collected([stored(tars)], tars, take)[0]


def dpkg(*names: str) -> bytes:
    return "".join(f"Package: {name}\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\n" for name in names).encode()


STATUS = "var/lib/dpkg/status"
NODE = "srv/node_modules/a/package.json"
PACKAGE_JSON = b'{"name": "a", "version": "1"}'

VISIBLE: dict[str, tuple[list[list[TarItem]], list[str]]] = {
    "a database": ([[file(STATUS, dpkg("a", "b"))]], ["deb a", "deb b"]),
    "the upper one counts": ([[file(STATUS, dpkg("a", "b"))], [file(STATUS, dpkg("a"))]], ["deb a"]),
    "an untouched one below": ([[file(STATUS, dpkg("a"))], [file("etc/x")]], ["deb a"]),
    "deleted": ([[file(STATUS, dpkg("a"))], [file("var/lib/dpkg/.wh.status")]], []),
    "its folder deleted": ([[file(STATUS, dpkg("a"))], [file("var/lib/.wh.dpkg")]], []),
    "its folder replaced by a link": ([[file(STATUS, dpkg("a"))], [symlink("var/lib/dpkg", "/data")]], []),
    "its folder made opaque": ([[file(STATUS, dpkg("a"))], [directory("var/lib"), file("var/lib/.wh..wh..opq")]], []),
    "deleted and made again": (
        [[file(STATUS, dpkg("a"))], [file("var/lib/.wh.dpkg")], [file(STATUS, dpkg("c"))]],
        ["deb c"],
    ),
    "a folder of databases": (
        [[file("var/lib/dpkg/status.d/a", b"Package: a\nVersion: 1\n"), file("var/lib/dpkg/status.d/a.md5sums", b"Package: b\n")]],
        ["deb a"],
    ),
    "apk": ([[file("lib/apk/db/installed", b"P:musl\nV:1\n"), file("usr/lib/apk/db/installed", b"P:musl\nV:1\n")]], ["apk musl"]),
    "elsewhere it is no database": ([[file("srv/var/lib/dpkg/status", dpkg("a")), file("status", dpkg("a"))]], []),
    "python": (
        [
            [
                file("usr/lib/python3/dist-packages/X_Y-1.dist-info/METADATA", b"Name: X_Y\nVersion: 1\n"),
                file("usr/lib/python3/dist-packages/z.egg-info/PKG-INFO", b"Name: z\nVersion: 1\n"),
                file("usr/lib/python3/dist-packages/w-1.egg-info", b"Name: w\nVersion: 1\n"),
                file("usr/share/METADATA", b"Name: no\nVersion: 1\n"),
            ]
        ],
        ["pypi w", "pypi x-y", "pypi z"],
    ),
    "node": (
        [
            [
                file(NODE, PACKAGE_JSON),
                file("srv/node_modules/@s/b/package.json", b'{"name": "@s/b", "version": "1"}'),
                file("srv/node_modules/a/test/package.json", b'{"name": "no", "version": "1"}'),
                file("srv/package.json", b'{"name": "no", "version": "1"}'),
                file("srv/node_modules/a/node_modules/c/package.json", b'{"name": "c", "version": "1"}'),
            ]
        ],
        ["npm @s/b", "npm a", "npm c"],
    ),
    "several names of one file": ([[file("srv/first", dpkg("a")), directory("var/lib/dpkg"), hardlink("srv/second", "srv/first")]], []),
    "no file but a link": ([[symlink(STATUS, "/etc/passwd"), directory(NODE)]], []),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(VISIBLE))
def test_what_is_visible_in_the_final_image_counts(case: str, take: Take) -> None:
    layers, wanted = VISIBLE[case]
    found = contents(layers, take)
    assert [f"{one.kind} {one.name}" for one in found.software] == wanted
    assert found.remarks == ()


def test_a_layer_that_two_images_share_counts_in_each_as_far_as_it_is_seen(take: Take) -> None:
    base, top = build([file(STATUS, dpkg("a"))]), build([file("var/lib/dpkg/.wh.status"), file(NODE, PACKAGE_JSON)])
    images = [stored([base, top], "app:1"), stored([base], "base:1")]
    first, second = collected(images, [base, top], take)
    assert [one.name for one in first.software] == ["a"] and first.software[0].kind == "npm"
    assert [one.kind for one in second.software] == ["deb"]


def test_etc_os_release_goes_before_that_of_usr_lib(take: Take) -> None:
    vendor, own = file("usr/lib/os-release", b"ID=debian\nVERSION_ID=12\n"), file("etc/os-release", b"ID=mine\n")
    for layers, wanted in (
        ([[vendor]], "debian"),
        ([[vendor, own]], "mine"),
        ([[own], [vendor]], "mine"),
        ([[own, vendor], [file("etc/.wh.os-release")]], "debian"),
    ):
        found = contents(layers, take)
        assert found.system is not None and found.system.identifier == wanted
    assert contents([[file("etc/x")]], take).system is None


REMARKED: dict[str, tuple[list[TarItem], str]] = {
    "rpm": ([file("var/lib/rpm/rpmdb.sqlite", b"x")], "the rpm database /var/lib/rpm/rpmdb.sqlite is not read"),
    "a broken record": (
        [file(STATUS, dpkg("a") + b"Package: b c\nStatus: install ok installed\n\n" * 2)],
        "/var/lib/dpkg/status: 2 records left out, of the first its name is no name",
    ),
    "a broken file": ([file(NODE, b"{"), file(STATUS, dpkg("a"))], "/srv/node_modules/a/package.json is not read: it is not JSON"),
    "a hostile name": (
        [file("srv/\x1b[2J/node_modules/a/package.json", b"{"), file(STATUS, dpkg("a"))],
        "/srv/\\x1b[2J/node_modules/a/package.json is not read: it is not JSON",
    ),
    "a huge file": ([file(NODE, b" " * (1 << 20) + b"1"), file(STATUS, dpkg("a"))], "it has 1048577 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(REMARKED))
def test_what_cannot_be_read_is_said_and_the_rest_is_there(case: str, take: Take) -> None:
    items, wanted = REMARKED[case]
    found = contents([items], take)
    assert len(found.remarks) == 1 and wanted in found.remarks[0]
    assert [one.name for one in found.software] == ([] if case == "rpm" else ["a"])
    hidden = contents([items, [file("var/.wh.lib"), file(".wh.srv")]], take)
    assert hidden == ImageContents()


def test_a_layer_that_no_reader_can_read_to_its_end_is_said() -> None:
    tar = build([file(STATUS, dpkg("a"))])[:-1024] + b"\xff" * 512
    (found,) = collected([stored([tar])], [tar], as_tar)
    assert [one.name for one in found.software] == ["a"]
    assert len(found.remarks) == 1 and "not a valid tar" in found.remarks[0]


def test_numbers_are_bounded(monkeypatch: pytest.MonkeyPatch, take: Take) -> None:
    monkeypatch.setattr(collection, "PACKAGES_MAX", 3)
    packages = [file(f"srv/node_modules/{name}/package.json", f'{{"name": "{name}", "version": "1"}}'.encode()) for name in "abcde"]
    found = contents([packages], take)
    assert len(found.software) == 3
    assert any("more than 3 packages" in remark for remark in found.remarks)
    found = contents([[file(STATUS, dpkg(*"abcdefgh"))]], take)
    assert len(found.software) == 3 and len(found.remarks) == 1
    monkeypatch.setattr(collection, "PACKAGES_MAX", 100)
    monkeypatch.setattr(collection, "CHARACTERS_MAX", 10)
    assert len(contents([[file(STATUS, dpkg(*"abcdefgh"))]], take).software) == 2
    monkeypatch.setattr(collection, "ENTRIES_MAX", 5)
    with pytest.raises(CollectionImpossible):
        contents([[file("a")], [file(f"f{number}") for number in range(9)]], take)


@pytest.mark.parametrize(("bound", "value"), [("DATABASES_MAX", 3), ("READ_MAX_BYTES", 100), ("NAMES_MAX_BYTES", 100)])
def test_files_that_are_looked_into_are_bounded(bound: str, value: int, monkeypatch: pytest.MonkeyPatch, take: Take) -> None:
    monkeypatch.setattr(collection, bound, value)
    packages = [file(f"srv/node_modules/{name}/package.json", f'{{"name": "{name}", "version": "1"}}'.encode()) for name in "abcde"]
    found = contents([packages[:2], packages[2:]], take)
    assert len(found.software) == 3
    assert len(found.remarks) == 1 and "package databases in this store" in found.remarks[0]


def test_remarks_are_bounded(take: Take) -> None:
    found = contents([[file(f"srv/node_modules/n{number}/package.json", b"{") for number in range(60)]], take)
    assert len(found.remarks) == 51 and found.remarks[-1] == "and 10 more such remarks"


def test_paths_of_thousands_of_folders_cost_little_memory() -> None:
    below, top = build([file("a")]), build([file(f"{number}/{'a/' * 1500}f") for number in range(60)])
    packages = PackageCollection([stored([below, top])])
    with as_file(top, 0) as tar:
        tracemalloc.start()
        packages.tar(diff_id(top), tar, "app:1, layer 1", 1_000_000)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 20 << 20
    packages = PackageCollection([stored([below, top])])
    with as_file(below, 0) as lower, as_file(top, 0) as tar:
        packages.tar(diff_id(below), lower, "app:1, layer 0", 1000)
        packages.tar(diff_id(top), tar, "app:1, layer 1", 1000)
    assert packages.contents(stored([below, top])).remarks == ("app:1, layer 1: it implies more than 2000 directories",)


def test_layers_that_change_one_database_again_and_again_do_not_add_up(monkeypatch: pytest.MonkeyPatch, take: Take) -> None:
    monkeypatch.setattr(collection, "PACKAGES_MAX", 8)
    found = contents([[file(STATUS, dpkg(*"abcdefgh"[:count]))] for count in range(1, 9)], take)
    assert len(found.software) == 8 and found.remarks == ()


def test_a_hostile_database_costs_little_memory() -> None:
    lines = b"".join(b"k%d: v\n" % number for number in range(500_000)) + dpkg("a")
    tracemalloc.start()
    read = list(debian_packages(lines))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(read) == 1
    assert peak < 2 * len(lines) + (1 << 20)


def test_a_database_is_the_same_in_any_order_of_its_records(take: Take) -> None:
    names: list[Any] = ["b", "c", "a"]
    first, second = (contents([[file(STATUS, dpkg(*order))]], take) for order in (names, names[::-1]))
    assert first == second
    assert contents([[item(STATUS, data=dpkg(*names), mode=0)]], take) == first
