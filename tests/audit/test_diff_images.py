"""Images, stores and output folders: what one variation changes is what is said."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from archives import ImageSpec, docker_archive, docker_files, oci_layout, write_tar
from commandline import shiplap_command
from comparison import compared, every_finding, every_section, every_text, told
from images import directory, file
from layertar import build
from shiplap.audit.differences import Section
from shiplap.audit.diffjson import causes, compare_documents

BASE = build([directory("etc"), file("etc/motd", b"hello\n"), file("etc/kept", b"kept")])
TOP = build([directory("srv"), file("srv/app", b"one\ntwo\n", mode=0o755)])
NEW_TOP = build([directory("srv"), file("srv/app", b"one\n2\n", mode=0o755)])
IMAGE = ImageSpec([BASE, TOP], tags=["app:1"])
REBUILT = ImageSpec([BASE, NEW_TOP], tags=["app:1"])


def archive(path: Path, *images: ImageSpec, **options: Any) -> Path:
    docker_archive(path, images, **options)
    return path


def section_of(section: Section, title: str) -> Section:
    return next(one for one in every_section(section) if one.title == title)


def test_a_rebuilt_layer_meets_its_earlier_self(tmp_path: Path) -> None:
    section = compared(archive(tmp_path / "a.tar", IMAGE), archive(tmp_path / "b.tar", REBUILT))
    assert told(section_of(section, "layer 1")) == [("layer", "diffID")]
    (finding,) = section_of(section, "entries").findings
    assert finding.where == "srv/app" and [change.field for change in finding.changes] == ["size", "content"]
    assert "-two" in finding.detail and "+2" in finding.detail
    assert "layer 0" not in [one.title for one in every_section(section)]
    assert "rootfs.diff_ids[1]" in [finding.where for finding in section_of(section, "config").findings]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"architecture": "arm64"}, "architecture"),
        ({"config": {"Cmd": ["/bin/other"], "Env": ["PATH=/bin"]}}, "config.Cmd[0]"),
        ({"config": {"Cmd": ["/bin/app"], "Env": ["PATH=/bin", "A=1"]}}, "config.Env[1]"),
        ({"author": "me"}, "author"),
        ({"created": "2025-01-01T00:00:00Z"}, "created"),
    ],
)
def test_one_field_of_a_config_is_found(change: dict[str, Any], where: str, tmp_path: Path) -> None:
    section = compared(archive(tmp_path / "a.tar", IMAGE), archive(tmp_path / "b.tar", replace(IMAGE, config=change)))
    config = section_of(section, "config")
    assert [finding.where for finding in config.findings] == ["digest", where]


def test_the_same_image_in_two_transports_is_equal_and_its_form_is_said(tmp_path: Path) -> None:
    archive(tmp_path / "a.tar", IMAGE)
    oci_layout(tmp_path / "oci", [IMAGE], compression="gzip")
    section = compared(f"docker-archive:{tmp_path / 'a.tar'}", f"oci:{tmp_path / 'oci'}")
    assert not section.differs
    assert any("stored as a plain tar" in text and "as gzip" in text for text in every_text(section))


def test_references_and_images_of_one_side_are_found(tmp_path: Path) -> None:
    other = ImageSpec([BASE], tags=["tool:1"])
    section = compared(archive(tmp_path / "a.tar", IMAGE), archive(tmp_path / "b.tar", replace(IMAGE, tags=["app:1", "app:2"]), other))
    assert [(one.where, one.verdict) for one in every_finding(section)] == [
        ("image docker.io/library/tool:1", "only in B"),
        ("reference docker.io/library/app:2", "only in B"),
    ]


def test_images_meet_by_name_then_by_digest_whatever_their_order(tmp_path: Path) -> None:
    tool, nameless = ImageSpec([BASE], tags=["tool:1"]), ImageSpec([BASE, BASE], tags=["old:1"])
    one = archive(tmp_path / "a.tar", IMAGE, tool, nameless)
    section = compared(one, archive(tmp_path / "b.tar", ImageSpec([TOP]), replace(nameless, tags=["new:1"]), tool, IMAGE))
    assert sorted((finding.where, finding.verdict) for finding in every_finding(section) if finding.where.startswith("reference")) == [
        ("reference docker.io/library/new:1", "only in B"),
        ("reference docker.io/library/old:1", "only in A"),
    ]
    assert not [one.title for one in every_section(section) if one.title in ("config", "layer 0", "layer 1")]


def test_archives_of_equal_images_differ_in_their_records_only(tmp_path: Path) -> None:
    files = docker_files([IMAGE])
    write_tar(tmp_path / "a.tar", files)
    write_tar(tmp_path / "b.tar", dict(reversed(files.items())))
    section = compared(tmp_path / "a.tar", tmp_path / "b.tar")
    assert section.differs and [one.group for one in every_finding(section)] == ["order of the records"]


# --- builds


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One build and others with one variation each."""
    folder = tmp_path_factory.mktemp("builds")
    archive(folder / "app.tar", IMAGE)
    (folder / "rebuilt").mkdir()
    archive(folder / "rebuilt" / "app.tar", REBUILT)
    variations = {
        "plain": (folder / "app.tar", ()),
        "epoch": (folder / "app.tar", ("--source-date-epoch", "5")),
        "path": (folder / "app.tar", ("--store-path", "/opt/store")),
        "layer": (folder / "rebuilt" / "app.tar", ()),
    }
    for name, (source, options) in variations.items():
        done = shiplap_command("build", f"docker-archive:{source}", "-o", str(folder / name), "--output", "squashfs,verity,tar", *options)
        assert done.returncode == 0, done.stderr
    return {name: folder / name for name in variations}


def test_a_build_is_equal_to_itself(builds: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(builds["plain"], tmp_path / "copy")
    assert not compared(builds["plain"], tmp_path / "copy").differs


def test_another_epoch_is_named_first_and_is_all_that_the_store_shows(builds: dict[str, Path]) -> None:
    section = compared(builds["plain"], builds["epoch"])
    assert section.causes == ["built with the epochs 1714564800 (from newest image) and 5 (from command line)"]
    assert [one.title for one in section.sections][:2] == ["record.json", "store.json"]
    image = section_of(section, "store.squashfs")
    entries = [one for one in every_section(image) if one.title.startswith(("layer", "metadata"))]
    assert {group for one in entries for group in one.groups} == {"mtime"}


def test_another_store_path_is_named_as_an_option_and_in_the_links(builds: dict[str, Path]) -> None:
    section = compared(builds["plain"], builds["path"])
    assert section.causes == ["built with other options: store-path"]
    image = section_of(section, "store.squashfs")
    assert set(section_of(image, "metadata of the store").groups) == {"link target"}
    assert {group for one in every_section(image) if one.title.startswith("layer") for group in one.groups} == set()
    assert not section_of(section, "store.tar").findings, "its store.json is beside it; its entries do not know the path"


def test_another_layer_shows_its_own_entries_and_not_what_follows_from_its_digest(builds: dict[str, Path]) -> None:
    section = compared(builds["plain"], builds["layer"])
    for name in ("store.squashfs", "store.tar"):
        layer = section_of(section_of(section, name), "layer 1")
        assert told(layer) == [("layer", "diffID"), ("srv/app", "size and content")]
        assert section_of(section_of(section, name), "metadata of the store").total == 0


def test_a_store_image_and_a_store_tar_are_one_store(builds: dict[str, Path]) -> None:
    section = compared(builds["plain"] / "store.squashfs", builds["plain"] / "store.tar")
    assert section.kind == "store"
    layers = [one for one in every_section(section) if one.title.startswith("layer")]
    assert layers and all(one.total == 0 for one in layers)


def test_the_figures_of_a_record_follow_and_are_one_line_of_the_text(builds: dict[str, Path]) -> None:
    section = compared(builds["plain"], builds["layer"])
    record = section_of(section, "record.json")
    assert {finding.where.partition("[")[0] for finding in record.findings} == {"sources"} and not record.causes
    assert {one.title for one in every_section(section) if one.follows} == {
        "figures", "store.verity", "store.roothash", "SHA256SUMS",
    }  # fmt: skip
    titles = ["record.json's figures", "store.verity", "store.roothash", "SHA256SUMS"]
    assert [title for title, _ in section.following()] == titles
    words = ("diff", str(builds["plain"]), str(builds["layer"]))
    text, full = shiplap_command(*words).stdout, shiplap_command(*words, "-v").stdout
    assert text.splitlines()[-1].startswith("and what follows from that (-v lists it): record.json's figures (")
    assert "outputs.store.squashfs" not in text and "outputs.store.squashfs" in full and "what follows" not in full
    assert "equal: store.json," not in text, "it differs, and the store image's own part of it has another name"


def test_figures_that_alone_differ_are_shown(builds: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(builds["plain"], tmp_path / "copy")
    (tmp_path / "copy" / "store.roothash").write_text("0" * 64 + "\n")
    text = shiplap_command("diff", str(builds["plain"]), str(tmp_path / "copy")).stdout
    assert "what follows" not in text and "-" + (builds["plain"] / "store.roothash").read_text().strip() in text


def test_files_of_one_folder_only_are_named(builds: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(builds["plain"], tmp_path / "copy")
    (tmp_path / "copy" / "store.tar").unlink()
    (tmp_path / "copy" / "notes.txt").write_text("x")
    section = compared(builds["plain"], tmp_path / "copy")
    assert [(one.where, one.verdict) for one in section.findings] == [("notes.txt", "only in B"), ("store.tar", "only in A")]


# --- documents


def test_other_tools_are_said_in_a_sentence(builds: dict[str, Path]) -> None:
    record = json.loads((builds["plain"] / "record.json").read_text())
    tool = record["tools"][0]
    library = f"{tool['library'].rpartition(' ')[0]} 9.9.9"
    other = {**record, "tools": [{**tool, "library": library}]}
    assert list(causes(record, other)) == [f"built with {tool['library']} and 9.9.9"]
    other = {**record, "shiplap": "9.0", "tools": [{"tool": "mksquashfs", "version": "4.6.1"}]}
    assert list(causes(record, other)) == [
        f"built with shiplap {record['shiplap']} and 9.0",
        "builtin was used for A, not for B",
        "mksquashfs was used for B, not for A",
    ]
    assert list(causes(record, record)) == []


@pytest.mark.parametrize("hostile", [[], "x", {"tools": 5}, {"tools": [1, {"tool": []}]}, {"options": [[]], "epoch": 7}])
def test_a_record_of_any_shape_is_no_crash(hostile: Any) -> None:
    list(causes(hostile, {"tools": [{"tool": "builtin"}], "epoch": {"value": 1, "from": "x"}}))
    list(causes({"tools": [{"tool": "builtin"}]}, hostile))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1, 3]}}, [("a.b[1]", "differs")]),
        ({"a": 1}, {"a": True}, [("a", "differs")]),
        ({"a": 1}, {}, [("a", "only in A")]),
        ([{"name": "x", "v": 1}, {"name": "y"}], [{"name": "y"}, {"name": "x", "v": 2}], [("[x].v", "differs"), (" (order)", "differs")]),
        ({"a": None}, {}, [("a", "only in A")]),
    ],
)
def test_documents_are_compared_place_by_place(a: Any, b: Any, expected: list[tuple[str, str]]) -> None:
    section = Section("", "JSON", 10)
    compare_documents(a, b, section)
    assert [(one.where, one.verdict) for one in section.findings] == expected


def test_documents_that_mean_the_same_are_compared_by_their_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{"a":1}')
    (tmp_path / "b").write_text('{"a": 1}')
    section = compared(tmp_path / "a", tmp_path / "b")
    assert section.differs and "mean the same" in section.remarks[0] and section.findings[0].where == "the file"


def test_checksums_are_compared_by_name(tmp_path: Path) -> None:
    for folder, digit in (("a", "1"), ("b", "2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "SHA256SUMS").write_text(f"{digit * 64}  store.tar\n{'0' * 64}  store.json\n")
    section = compared(tmp_path / "a" / "SHA256SUMS", tmp_path / "b" / "SHA256SUMS")
    assert told(section) == [("store.tar", "sha256")]


def test_a_path_with_a_colon_is_a_path(tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    one = archive(tmp_path / "a:b" / "x:1.tar", IMAGE)
    assert not compared(one, one).differs
    assert compared(one, archive(tmp_path / "a:b" / "y:2.tar", REBUILT)).differs
