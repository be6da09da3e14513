"""``--limit``: a store that was built with raised limits can be verified and inspected with them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from archives import ImageSpec, docker_archive
from commandline import shiplap_command
from images import file
from layertar import build
from shiplap.audit.inspection import inspect_thing
from shiplap.audit.verify import Verification, verify_thing
from shiplap.cli.limits import add_limit_option, limits_of
from shiplap.core.errors import ShiplapError
from shiplap.core.limits import Limits
from shiplap.core.progress import SILENT

LAYER = build([file(f"f{number}", b"x" * 3000) for number in range(10)])


def parsed(*words: str, base: Limits | None = None) -> Limits:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_limit_option(parser)
    return limits_of(parser.parse_args(words), base)


def test_limits_are_the_manifest_s_words_laid_over_what_holds_already() -> None:
    assert parsed() == Limits()
    assert parsed("--limit", "layer-bytes=32G", "--limit=entries=5", "--limit", "metadata-bytes=8M") == Limits(32 << 30, 5, 8 << 20)
    assert parsed("--limit", "entries=5", base=Limits(layer_bytes=7)) == Limits(7, 5)
    assert parsed("--limit", "entries=5", "--limit", "entries=6").entries == 6


@pytest.mark.parametrize(
    "text",
    ["", "layers=5", "entries", "entries=", "entries=0", "entries=-1", "entries=5K", "entries=1000000001", "entries=٣", "layer-bytes=16GB"],
)
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentError):
        parsed("--limit", text)


def test_no_command_line_says_exit_code_2() -> None:
    done = shiplap_command("verify", "x", "--limit", "layer-bytes=1XB")
    assert done.returncode == 2 and "1XB" in done.stderr


@pytest.fixture
def source(tmp_path: Path) -> str:
    return f"docker-archive:{docker_archive(tmp_path / 'images.tar', [ImageSpec([LAYER], tags=['app:1'])])}"


@pytest.mark.parametrize("limit", ["layer-bytes=20K", "entries=9"])
@pytest.mark.parametrize("mode", [["--output", "squashfs,tar"], ["--mode", "archive"]], ids=["store", "archive"])
def test_verification_holds_everything_to_the_limits_given(tmp_path: Path, source: str, limit: str, mode: list[str]) -> None:
    out = str(tmp_path / "out")
    assert shiplap_command("build", source, "-o", out, *mode).returncode == 0
    assert shiplap_command("verify", out).returncode == 0
    done = shiplap_command("verify", out, "--limit", limit)
    if mode[0] == "--mode" and limit.startswith("entries"):
        assert done.returncode == 0  # an archive's layers are only hashed
    else:
        assert done.returncode == 2 and f"--limit {limit.split('=')[0]}=…" in done.stderr
    assert shiplap_command("verify", out, "--limit", "layer-bytes=1G", "--limit", "entries=10").returncode == 0


def test_a_build_without_a_manifest_can_raise_limits_too(tmp_path: Path, source: str) -> None:
    done = shiplap_command("build", source, "-o", str(tmp_path / "out"), "--limit", "entries=9")
    assert done.returncode == 2 and "more than 9 entries" in done.stderr and "or give --limit entries=…" in done.stderr
    assert shiplap_command("build", source, "-o", str(tmp_path / "out"), "--limit", "entries=10").returncode == 0


def test_the_command_line_is_stronger_than_the_manifest(tmp_path: Path, source: str) -> None:
    manifest = {"version": 1, "images": [{"ref": "app:1", "from": source}], "limits": {"entries": 9}}
    (tmp_path / "shiplap.yaml").write_text(json.dumps(manifest))
    assert shiplap_command("build", cwd=tmp_path).returncode == 2
    assert shiplap_command("build", "--limit", "entries=10", cwd=tmp_path).returncode == 0


def test_lock_fetch_and_import_take_it_too(tmp_path: Path, source: str) -> None:
    manifest = {"version": 1, "images": [{"ref": "app:1", "from": source}], "limits": {"metadata-bytes": "100"}}
    (tmp_path / "shiplap.yaml").write_text(json.dumps(manifest))
    (tmp_path / "root/image").mkdir(parents=True)
    cache = ("--cache", str(tmp_path / "cache"))
    done = shiplap_command("lock", *cache, cwd=tmp_path)
    assert done.returncode == 2 and "more than the 100 allowed for metadata" in done.stderr
    assert shiplap_command("lock", *cache, "--limit", "metadata-bytes=4M", cwd=tmp_path).returncode == 0
    emptied = ("--cache", str(tmp_path / "emptied"))
    done = shiplap_command("fetch", *emptied, cwd=tmp_path)
    assert done.returncode == 2 and "more than the 100 allowed for metadata" in done.stderr
    assert shiplap_command("fetch", *emptied, "--limit", "metadata-bytes=4M", cwd=tmp_path).returncode == 0
    done = shiplap_command("import", str(tmp_path / "root"), "--limit", "entries=x", "--manifest", "other.yaml", cwd=tmp_path)
    assert done.returncode == 2 and "is no number of entries" in done.stderr


def test_a_whole_image_may_have_more_entries_where_a_layer_may(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (Limits().image_entries, Limits(entries=5).image_entries, Limits(entries=10**7).image_entries) == (
        4 * 10**6,
        4 * 10**6,
        2 * 10**7,
    )
    out = tmp_path / "out"
    assert shiplap_command("build", source, "-o", str(out), "--output", "squashfs").returncode == 0
    monkeypatch.setattr(Limits, "image_entries", property(lambda self: self.entries))
    for limits in (Limits(entries=36), Limits(entries=37)):
        for look in (lambda: inspect_thing(str(out), None, limits), lambda: verify_thing(out, None, Verification(limits, SILENT))):  # noqa: B023
            if limits.entries == 37:
                look()
            else:
                with pytest.raises(ShiplapError, match="37 entries or more; 36 are the limit"):
                    look()
