"""A generated tree is written over itself, and what somebody edited in it is never lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from shiplap.adapters.generated import NEW_SUFFIX, STAMP_NAME, TreeRefused, TreeReport, write_tree

TEXTS = {"README.md": "read me\n", "package/x/x.mk": "X = 1\n", "package/x/S59x": "#!/bin/sh\nexit 0\n"}


def put(folder: Path, texts: dict[str, str] | None = None, *, force: bool = False, carried: bytes | None = None) -> TreeReport:
    files = {} if carried is None else {"dl/tool.tar": lambda write: write(carried)}
    return write_tree(folder, TEXTS if texts is None else texts, files, force=force)


def test_everything_is_written_with_its_mode_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        report = put(tmp_path / "tree", carried=b"bytes")
    finally:
        os.umask(before)
    tree = tmp_path / "tree"
    assert report.written == ("README.md", "dl/tool.tar", "package/x/S59x", "package/x/x.mk")
    modes = {str(path.relative_to(tree)): path.stat().st_mode & 0o7777 for path in sorted(tree.rglob("*"))}
    assert modes == {
        STAMP_NAME: 0o644, "README.md": 0o644, "dl": 0o755, "dl/tool.tar": 0o644,
        "package": 0o755, "package/x": 0o755, "package/x/S59x": 0o755, "package/x/x.mk": 0o644,
    }  # fmt: skip
    assert (tree / "dl/tool.tar").read_bytes() == b"bytes"


def test_a_second_time_nothing_is_touched(tmp_path: Path) -> None:
    put(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mk")}
    assert put(tmp_path).unchanged == tuple(sorted(TEXTS))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mk")} == before


def test_what_is_ours_is_replaced_and_what_was_edited_stays(tmp_path: Path) -> None:
    put(tmp_path)
    (tmp_path / "README.md").write_text("mine\n")
    report = put(tmp_path, {name: text + "more\n" for name, text in TEXTS.items()})
    assert (report.written, report.kept) == (("package/x/S59x", "package/x/x.mk"), ("README.md",))
    assert (tmp_path / "README.md").read_text() == "mine\n"
    assert (tmp_path / f"README.md{NEW_SUFFIX}").read_text() == "read me\nmore\n"
    # Still edited the next time, although the stamp has seen it once.
    assert put(tmp_path, {name: text + "most\n" for name, text in TEXTS.items()}).kept == ("README.md",)
    assert (tmp_path / "README.md").read_text() == "mine\n"


def test_an_edit_that_arrives_at_our_text_is_no_edit_any_more(tmp_path: Path) -> None:
    put(tmp_path)
    (tmp_path / "README.md").write_text("mine\n")
    put(tmp_path, {**TEXTS, "README.md": "new\n"})
    (tmp_path / f"README.md{NEW_SUFFIX}").rename(tmp_path / "README.md")
    assert "README.md" in put(tmp_path, {**TEXTS, "README.md": "new\n"}).unchanged
    assert put(tmp_path, {**TEXTS, "README.md": "newer\n"}).written == ("README.md",)


def test_a_foreign_file_in_the_way_is_kept_and_force_takes_ours(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("was here before\n")
    assert put(tmp_path).kept == ("README.md",)
    assert put(tmp_path, force=True).written == ("README.md",)
    assert (tmp_path / "README.md").read_text() == "read me\n"
    assert not (tmp_path / f"README.md{NEW_SUFFIX}").exists()


def test_what_is_no_longer_generated_goes_with_its_empty_folders_unless_it_was_edited(tmp_path: Path) -> None:
    put(tmp_path)
    (tmp_path / "package/x/S59x").write_text("#!/bin/sh\n# mine\n")
    (tmp_path / "foreign").write_text("untouched")
    report = put(tmp_path, {"README.md": "read me\n"})
    assert (report.removed, report.kept, report.left) == (("package/x/x.mk",), (), ("package/x/S59x",))
    put(tmp_path, TEXTS, force=True)
    assert put(tmp_path, {"README.md": "read me\n"}).removed == ("package/x/S59x", "package/x/x.mk")
    assert sorted(path.name for path in tmp_path.iterdir()) == [STAMP_NAME, "README.md", "foreign"]


def test_an_edited_file_that_is_no_longer_generated_stays_alone(tmp_path: Path) -> None:
    put(tmp_path)
    (tmp_path / "README.md").write_text("mine\n")
    put(tmp_path, {**TEXTS, "README.md": "new\n"})
    assert (tmp_path / f"README.md{NEW_SUFFIX}").exists()
    without = {name: text for name, text in TEXTS.items() if name != "README.md"}
    report = put(tmp_path, without)
    assert (report.left, report.kept, report.removed) == (("README.md",), (), ())
    assert (tmp_path / "README.md").read_text() == "mine\n"
    assert not (tmp_path / f"README.md{NEW_SUFFIX}").exists(), "nothing would be written now"
    put(tmp_path, force=True)
    (tmp_path / "README.md").write_text("mine\n")
    assert put(tmp_path, without, force=True).removed == ("README.md",)


def test_what_is_in_the_way_is_found_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "package/x/x.mk").mkdir(parents=True)
    with pytest.raises(TreeRefused, match=r"x\.mk is in the way"):
        put(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["package"]
    (tmp_path / "file").write_text("")
    with pytest.raises(TreeRefused):
        put(tmp_path / "file")


@pytest.mark.parametrize("line", ["../outside", "/etc/passwd", "a/../../outside", "way/file", "a\0b", "\x1b[2J"])
def test_a_stamp_or_a_link_never_leads_out_of_the_tree(tmp_path: Path, line: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    tree = tmp_path / "tree"
    put(tree)
    (tree / "way").symlink_to(outside)
    digest = "0" * 64
    with (tree / STAMP_NAME).open("a") as stamp:
        stamp.write(f"{digest}  {line}\n")
    with pytest.raises(TreeRefused):
        put(tree, force=True)
    with pytest.raises(TreeRefused):
        put(tree, {"way/file": "ours"}, force=True)
    assert (outside / "file").read_text() == "precious"
