"""``shiplap cache``: what people and scripts see of it."""

from __future__ import annotations

import io
import json
import os
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from cacheblobs import blob_file, put, sha256
from commandline import shiplap_command
from shiplap.cli.main import main
from shiplap.core.cache import Cache
from shiplap.core.lock import Lock, LockedImage, LockedLayer
from shiplap.core.lock.document import write_lock
from shiplap.core.platform import parse_platform
from shiplap.core.reference import parse_reference

CONFIG, LAYER, OTHER = b"{}" * 20, b"layer" * 300, b"nobody's"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    cache = Cache(tmp_path / "cache")
    for data in (CONFIG, LAYER, OTHER):
        put(cache, data)
    root = cache.root
    del cache  # it used them
    return Cache(root)


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """Pins an image of one config and one layer, which the cache has under its blob's digest."""
    layer = LockedLayer("sha256:" + "d" * 64, sha256(LAYER), len(LAYER), "application/vnd.oci.image.layer.v1.tar+gzip")
    image = LockedImage(parse_reference("app:1"), "docker://app:1", parse_platform("linux/amd64"), sha256(CONFIG), len(CONFIG), (layer,))
    (tmp_path / "shiplap.lock.yaml").write_bytes(write_lock(Lock(1, 0, (image,))))
    return tmp_path / "shiplap.lock.yaml"


def call(*words: str) -> tuple[int, str, str]:
    """Exit code, standard output and error of the command line, in this process: it is called often."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(words)
    return code, out.getvalue(), err.getvalue()


def run(cache: Cache, *arguments: str, exit_code: int = 0) -> Any:
    """The JSON object that the verb prints."""
    code, out, err = call("-C", str(cache.root.parent), "cache", *arguments, "--cache", str(cache.root), "--json")
    assert code == exit_code, err
    return json.loads(out) if out else json.loads(err.splitlines()[-1])["error"]


def text(cache: Cache, *arguments: str) -> str:
    return call("cache", *arguments, "--cache", str(cache.root))[1]


def digests(*blobs: bytes) -> list[str]:
    return sorted(map(sha256, blobs))


def test_path_prints_where_it_is(cache: Cache) -> None:
    assert run(cache, "path") == {"folder": str(cache.root)}
    done = shiplap_command("cache", "path", env={"SHIPLAP_CACHE": str(cache.root)})
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{cache.root}\n", "")


def test_list_names_every_blob(cache: Cache) -> None:
    with cache.partial(sha256(b"partial"), 7) as partial:
        assert partial is not None
        partial.write(b"par")
    listed = run(cache, "list")
    assert [blob["digest"] for blob in listed["blobs"]] == digests(CONFIG, LAYER, OTHER)
    assert all(set(blob) == {"digest", "size_bytes", "used_epoch"} for blob in listed["blobs"])
    assert listed["partials"] == [{"digest": sha256(b"partial"), "size_bytes": 3}]
    assert listed["size_bytes"] == len(CONFIG + LAYER + OTHER)
    assert f"{sha256(LAYER)}  1.5 KiB\n" in text(cache, "list")
    assert "(partial)" in text(cache, "list") and "3 blobs, 1.5 KiB\n" in text(cache, "list")


def test_a_cache_that_is_not_there_is_empty_and_is_not_made(tmp_path: Path) -> None:
    absent = Cache(tmp_path / "absent")
    assert run(absent, "list")["blobs"] == [] and run(absent, "verify")["blobs"] == 0 and run(absent, "gc")["removed"] == []
    assert not absent.root.exists()


def test_verify_names_what_rotted_and_repair_removes_it(cache: Cache) -> None:
    assert run(cache, "verify") == {
        "folder": str(cache.root),
        "blobs": 3,
        "size_bytes": len(CONFIG + LAYER + OTHER),
        "damaged": [],
        "repaired": False,
        "odd": [],
    }
    blob_file(cache, sha256(LAYER)).write_bytes(LAYER[:-1] + b"x")
    (cache.root / "blobs/sha256/notes").touch()
    found = run(cache, "verify", exit_code=1)
    assert [one["digest"] for one in found["damaged"]] == [sha256(LAYER)]
    assert found["odd"] == ["blobs/sha256/notes"] and not found["repaired"]
    assert "--repair removes" in text(cache, "verify")
    assert run(cache, "verify", "--repair")["repaired"] is True
    assert run(cache, "verify")["blobs"] == 2


def test_gc_keeps_what_locks_name(cache: Cache, lock: Path) -> None:
    assert run(cache, "gc")["removed"] == []
    would = run(cache, "gc", "--keep", lock.name, "--dry-run")
    assert would["dry_run"] and would["removed"] == [{"digest": sha256(OTHER), "size_bytes": len(OTHER)}]
    done = run(cache, "gc", "--keep", lock.name, str(lock))
    assert done == {**would, "dry_run": False, "left": {"blobs": 2, "size_bytes": len(CONFIG + LAYER)}}
    assert [digest for digest, _ in Cache(cache.root).blobs()] == digests(CONFIG, LAYER)


def test_gc_by_age_and_size(cache: Cache) -> None:
    os.utime(blob_file(cache, sha256(LAYER)), (0, 1_000_000_000))
    assert [one["digest"] for one in run(cache, "gc", "--max-age", "30")["removed"]] == [sha256(LAYER)]
    assert run(cache, "gc", "--max-size", "1K")["removed"] == []
    assert len(run(cache, "gc", "--max-size", "0")["removed"]) == 2


def test_gc_without_a_readable_lock_removes_nothing(cache: Cache) -> None:
    assert "cannot read the lock" in run(cache, "gc", "--keep", "absent.yaml", exit_code=2)["message"]
    (cache.root.parent / "broken.yaml").write_text("version: 1\n")
    run(cache, "gc", "--keep", "broken.yaml", exit_code=2)
    assert len(list(cache.blobs())) == 3


@pytest.mark.parametrize(("option", "value"), [("--max-age", "-1"), ("--max-age", "x"), ("--max-size", "20GB"), ("--max-size", "")])
def test_gc_refuses_what_it_does_not_understand(cache: Cache, option: str, value: str) -> None:
    assert option in run(cache, "gc", f"{option}={value}", exit_code=2)["message"]


def test_export_writes_what_the_lock_needs(cache: Cache, lock: Path) -> None:
    names = [digest.replace(":", "-") for digest in digests(CONFIG, LAYER)]
    assert run(cache, "export", "dl") == {"folder": "dl", "new": names, "present": []}
    assert run(cache, "export", "dl", "--lock", str(lock), "--link") == {"folder": "dl", "new": [], "present": names}
    assert run(cache, "export", "--lock", str(lock), "--lock", lock.name, "dl")["present"] == names, "the folder is no lock"
    assert len(run(cache, "export", "dl", "--all")["new"]) == 1
    assert sorted(os.listdir(lock.parent / "dl")) == sorted([*names, sha256(OTHER).replace(":", "-")])


def test_export_says_what_is_missing(cache: Cache, lock: Path) -> None:
    cache.discard(sha256(LAYER))
    error = run(cache, "export", "dl", exit_code=2)
    assert error["message"] == f"the cache lacks {sha256(LAYER)} of docker.io/library/app:1"
    assert "shiplap fetch" in error["hint"] and not (lock.parent / "dl").exists()


def test_the_uncompressed_layer_serves_where_the_locked_blob_is_not(cache: Cache, lock: Path) -> None:
    """From an archive or an engine the cache has the layer under its diffID."""
    tar = b"tar" * 500
    layer = LockedLayer(sha256(tar), "sha256:" + "b" * 64, 5, "application/vnd.oci.image.layer.v1.tar+gzip")
    image = LockedImage(parse_reference("app:1"), "docker-archive:x", parse_platform("linux/amd64"), sha256(CONFIG), len(CONFIG), (layer,))
    lock.write_bytes(write_lock(Lock(1, 0, (image,))))
    put(cache, tar)
    assert run(cache, "export", "dl")["new"] == [digest.replace(":", "-") for digest in digests(CONFIG, tar)]
    del cache._use
    assert [one["digest"] for one in run(cache, "gc", "--keep", str(lock))["removed"]] == digests(LAYER, OTHER)


def test_a_folder_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "photos").mkdir()
    for action in (("gc", "--max-size", "0"), ("verify", "--repair")):
        error = run(Cache(tmp_path / "home"), *action, exit_code=2)
        assert "is no cache of shiplap" in error["message"] and "SHIPLAP_CACHE" in error["hint"]
