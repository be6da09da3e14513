"""``shiplap diff`` as a command: exit codes, text, JSON, HTML, diffoscope."""

from __future__ import annotations

import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from commandline import shiplap_command
from comparison import written
from requirement import SEARCH_PATH, missing
from shiplap.core.entries import Entry, Kind
from squashfsimages import tree_order
from squashfswriting import file

HOSTILE = b"<script>alert(1)<img src=x>&\"'\x1b[2J\n\xff"
PLAIN = [Entry(b"", Kind.DIRECTORY, 0o755), file(b"f", b"<b>one</b>\n")]


def pair(tmp_path: Path) -> tuple[str, str]:
    hostile = [Entry(b"", Kind.DIRECTORY, 0o755, xattrs=((b"user.<i>", b"<u>"),)), file(b"f", b"<b>two</b>\n"), file(HOSTILE, b"x")]
    one = written(tmp_path / "a.squashfs", PLAIN, "squashfs")
    return str(one), str(written(tmp_path / "b.squashfs", tree_order(hostile), "squashfs"))


def test_equal_is_0_different_is_1_refused_is_2(tmp_path: Path) -> None:
    a, b = pair(tmp_path)
    done = shiplap_command("diff", a, a)
    assert (done.returncode, done.stdout, done.stderr) == (0, "equal (SquashFS)\n", "")
    done = shiplap_command("diff", a, b)
    assert done.returncode == 1 and done.stderr == "" and done.stdout.startswith("A and B differ (SquashFS)\n")
    for words in ([a, str(tmp_path / "absent")], [a, str(tmp_path)], [a, b, "--max", "-1"], [a, b, "--max", "many"]):
        done = shiplap_command("diff", *words)
        assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr


def test_json_is_one_object_and_the_maximum_only_cuts_what_is_listed(tmp_path: Path) -> None:
    a, b = pair(tmp_path)
    done = shiplap_command("diff", a, b, "--json", "--max", "1")
    data = json.loads(done.stdout)
    assert done.returncode == 1 and done.stderr == ""
    assert sorted(data) == ["a", "b", "difference", "equal", "report"] and data["equal"] is False
    difference = data["difference"]
    assert difference["findings-total"] == 3 and len(difference["findings"]) == 1
    assert sum(group["count"] for group in difference["groups"]) == 3
    assert shiplap_command("diff", a, b, "--json", "--max", "1").stdout == done.stdout
    assert json.loads(shiplap_command("diff", a, a, "--json").stdout)["equal"] is True


def test_names_reach_the_terminal_escaped(tmp_path: Path) -> None:
    done = shiplap_command("diff", *pair(tmp_path))
    assert "\x1b" not in done.stdout and "\\x1b[2J\\n" in done.stdout


class Reader(HTMLParser):
    """Which tags and attributes a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_html_report_escapes_every_name_needs_nothing_and_is_always_the_same(tmp_path: Path) -> None:
    a, b = pair(tmp_path)
    assert shiplap_command("diff", a, b, "--html", str(tmp_path / "one")).returncode == 1
    assert shiplap_command("diff", a, b, "--html", str(tmp_path / "two"), env={"TZ": "Asia/Tokyo", "LC_ALL": "C"}).returncode == 1
    report = (tmp_path / "one" / "index.html").read_bytes()
    assert (tmp_path / "two" / "index.html").read_bytes() == report
    reader = Reader()
    reader.feed(report.decode())
    assert not reader.tags & {"script", "b", "i", "u", "img", "link", "iframe", "object"}
    assert reader.attributes <= {"lang", "charset", "http-equiv", "content", "class", "open", "rowspan", "colspan"}
    assert "<script>alert(1)<img src=x>&\"'\\x1b[2J\\n\\xff" in reader.text
    assert "-<b>one</b>" in reader.text and "user.<i>" in reader.text
    assert not re.search(rb"https?:|url\(|@import", report)


def test_a_report_of_nothing_says_that_they_are_equal(tmp_path: Path) -> None:
    a, _ = pair(tmp_path)
    assert shiplap_command("diff", a, a, "--html", str(tmp_path / "report")).returncode == 0
    assert "they are equal" in (tmp_path / "report" / "index.html").read_text()


def test_a_name_of_a_thing_that_is_no_utf8_is_shown(tmp_path: Path) -> None:
    name = os.fsdecode(bytes(tmp_path) + b"/\xff<x>.squashfs")
    written(Path(name), PLAIN, "squashfs")
    done = shiplap_command("diff", name, pair(tmp_path)[1], "--html", str(tmp_path / "report"))
    assert done.returncode == 1 and "&lt;x&gt;" in (tmp_path / "report" / "index.html").read_text()


def test_diffoscope_is_asked_for_kinds_that_we_do_not_know(tmp_path: Path) -> None:
    if shutil.which("diffoscope", path=SEARCH_PATH) is None:
        missing("diffoscope", "diffoscope is not installed")
    (tmp_path / "a.bin").write_bytes(b"\x89PNG <one>" * 9)
    (tmp_path / "b.bin").write_bytes(b"\x89PNG <two>" * 9)
    words = ["diff", str(tmp_path / "a.bin"), str(tmp_path / "b.bin")]
    plain = shiplap_command(*words)
    assert plain.returncode == 1 and "diffoscope" not in plain.stdout
    asked = shiplap_command(*words, "--diffoscope")
    assert asked.returncode == 1 and "diffoscope's report" in asked.stdout and "+++ " in asked.stdout
    assert shiplap_command(*words, "--html", str(tmp_path / "report")).returncode == 1
    assert "+++ " in (tmp_path / "report" / "index.html").read_text()


def test_without_diffoscope_it_is_missing_only_when_it_was_asked_for(tmp_path: Path) -> None:
    if any((Path(folder) / "diffoscope").exists() for folder in ("/usr/sbin", "/sbin")):
        pytest.skip("diffoscope lies where every PATH leads")
    a, b = pair(tmp_path)
    nowhere = {"PATH": str(tmp_path)}
    done = shiplap_command("diff", a, b, "--diffoscope", env=nowhere)
    assert done.returncode == 3 and "apt-get install diffoscope" in done.stderr
    assert shiplap_command("diff", a, b, "--html", str(tmp_path / "report"), env=nowhere).returncode == 1
