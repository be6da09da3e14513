"""``shiplap fetch``: afterwards a build needs no network, proven where there is none."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from archives import ImageSpec, IndexSpec, docker_archive, oci_files, oci_layout, sha256
from commandline import COMMAND, environment
from faultyproxy import Fault, running_proxy
from images import file
from layertar import build
from locks import good, lock_of, refused, store_sums, two_images, write_manifest
from registryserver import Registry, push, running_registry
from requirement import missing

APP, DB = two_images()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as one:
        push(one.address, "app", oci_files([APP]), {"1": _top(APP)})
        index = IndexSpec([DB, ImageSpec(DB.layers, platform="linux/arm64")], tags=["db:1"], attestations=True)
        push(one.address, "db", oci_files([index]), {"1": _top(index)})
        yield one


def _top(image: ImageSpec | IndexSpec, compression: str = "gzip") -> str:
    index = oci_files([image], compression=compression)["index.json"]
    assert isinstance(index, bytes)
    return str(json.loads(index)["manifests"][0]["digest"])


def insecure(address: str) -> dict[str, Any]:
    return {"registries": {address: {"tls-verify": False}}, "platform": "linux/amd64"}


@pytest.fixture
def folder(tmp_path: Path, registry: Registry) -> Path:
    """A manifest of two images of a registry, locked; nothing fetched."""
    at = registry.address
    write_manifest(tmp_path, {"app:1": f"docker://{at}/app:1", "db:1": f"docker://{at}/db:1"}, **insecure(at))
    good(tmp_path, "lock")
    return tmp_path


def nowhere(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """``shiplap WORDS`` in a network namespace with nothing in it, not even loopback."""
    if os.geteuid() != 0:
        missing("docker", "a network namespace needs root")
    env = environment({"SHIPLAP_CACHE": str(folder / "cache")})
    return subprocess.run(
        ["unshare", "--net", *COMMAND, *words], cwd=folder, env=env, text=True, capture_output=True, check=False, timeout=120
    )


def blobs(folder: Path) -> set[str]:
    return {f"sha256:{one.name}" for one in (folder / "cache/blobs/sha256").iterdir()}


def test_locking_fetches_no_layer(folder: Path) -> None:
    layers = {layer.blob for image in lock_of(folder).images for layer in image.layers}
    assert layers and not layers & blobs(folder)


def test_afterwards_a_build_needs_no_network_at_all(folder: Path, registry: Registry) -> None:
    before = nowhere(folder, "build", "--locked", "--offline")
    assert before.returncode == 2 and "`shiplap fetch` fills the cache" in before.stderr
    online = nowhere(folder, "build", "--locked")
    assert online.returncode == 1 and registry.address in online.stderr, "the namespace really has no network"
    result = good(folder, "fetch")
    assert [(one["ref"], one["from"], len(one["new"])) for one in result["images"]] == [
        ("docker.io/library/app:1", "source", 2),
        ("docker.io/library/db:1", "source", 1),
    ], "the layer that both have comes once, and the configs came with the lock"
    done = nowhere(folder, "build", "--locked", "--offline")
    assert done.returncode == 0, done.stderr
    offline = (folder / "shiplap-out/SHA256SUMS").read_bytes()
    good(folder, "build", "--locked", "--cache", "another-cache")
    assert (folder / "shiplap-out/SHA256SUMS").read_bytes() == offline, "store and record are those of a build from the registry"


def test_everything_that_is_pinned_is_in_the_cache(folder: Path) -> None:
    good(folder, "fetch")
    app, db = lock_of(folder).images
    pinned = {*app.manifest_digests, *db.manifest_digests, app.config, db.config, *(layer.blob for layer in (*app.layers, *db.layers))}
    assert pinned <= blobs(folder)


def test_a_second_run_asks_nobody(folder: Path, registry: Registry) -> None:
    good(folder, "fetch")
    asked = len(registry.requests())
    result = good(folder, "fetch")
    assert {one["from"] for one in result["images"]} == {"cache"} and not any(one["new"] for one in result["images"])
    assert len(registry.requests()) == asked


def test_the_lock_is_enough(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    alone = tmp_path_factory.mktemp("alone")
    (alone / "shiplap.lock.yaml").write_bytes((folder / "shiplap.lock.yaml").read_bytes())
    good(alone, "fetch", "--tls-verify=false")
    (alone / "shiplap.yaml").write_bytes((folder / "shiplap.yaml").read_bytes())
    good(alone, "build", "--locked", "--offline")


def test_only_one_platform_on_request(folder: Path) -> None:
    assert "pins nothing for linux/arm64; it pins linux/amd64" in refused(folder, "fetch", "--platform", "linux/arm64")
    assert len(good(folder, "fetch", "--platform", "linux/amd64")["images"]) == 2


# --- archives, layouts


@pytest.mark.parametrize("how", ["docker-archive", "oci"])
def test_of_files_the_cache_gets_what_the_lock_pins(tmp_path: Path, how: str) -> None:
    source = {"docker-archive": "docker-archive:app.tar", "oci": "oci:app"}[how]
    docker_archive(tmp_path / "app.tar", [APP], compression="gzip")
    oci_layout(tmp_path / "app", [APP])
    write_manifest(tmp_path, {"app:1": source})
    good(tmp_path, "lock")
    expected = store_sums(good(tmp_path, "build", "--locked"))
    good(tmp_path, "fetch")
    (app,) = lock_of(tmp_path).images
    layers = app.diff_ids if how == "docker-archive" else tuple(layer.blob for layer in app.layers)
    assert blobs(tmp_path) == {app.config, *layers, *app.manifest_digests}
    (tmp_path / "app.tar").unlink()
    (tmp_path / "app").rename(tmp_path / "app is away")
    assert store_sums(good(tmp_path, "build", "--locked", "--offline")) == expected


def test_a_source_with_other_blobs_gives_uncompressed_layers(folder: Path) -> None:
    docker_archive(folder / "app.tar", [APP])
    docker_archive(folder / "db.tar", [DB])
    expected = store_sums(good(folder, "build", "--cache", "one"))
    write_manifest(folder, {"app:1": "docker-archive:app.tar", "db:1": "docker-archive:db.tar"}, platform="linux/amd64")
    good(folder, "fetch", "--cache", "two")
    (folder / "app.tar").unlink()
    (folder / "db.tar").unlink()
    assert store_sums(good(folder, "build", "--offline", "--cache", "two")) == expected


def test_a_source_that_holds_something_else_is_refused(folder: Path) -> None:
    oci_layout(folder / "other", [ImageSpec([build([file("x")])])])
    write_manifest(folder, {"app:1": "oci:other", "db:1": "oci:other"}, platform="linux/amd64")
    assert "oci:other: not the image that is locked for docker.io/library/app:1" in refused(folder, "fetch")


# --- mirrors


@contextmanager
def served(folder: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_an_export_is_a_mirror_that_is_enough(folder: Path) -> None:
    result = good(folder, "fetch", "--export", "dl")
    names = {one.name for one in (folder / "dl").iterdir()}
    assert names == {digest.replace(":", "-") for digest in result["exported"]["new"]}
    assert good(folder, "fetch", "--export", "dl")["exported"] == {"new": [], "present": sorted(result["exported"]["new"])}
    for one in (folder / "dl").iterdir():
        assert f"sha256-{sha256(one.read_bytes())[7:]}" == one.name
    with served(folder / "dl") as url:
        for number, mirror in enumerate(("dl", url)):
            cache = f"cache{number}"
            fetched = good(folder, "fetch", "--cache", cache, "--mirror", "nowhere", "--mirror", mirror)
            assert {one["from"] for one in fetched["images"]} == {"mirror"}
            good(folder, "build", "--locked", "--offline", "--cache", cache)


def test_offline_a_mirror_that_is_a_folder_is_as_good_as_the_cache(folder: Path) -> None:
    good(folder, "fetch", "--export", "dl")
    done = nowhere(folder, "build", "--locked", "--offline", "--cache", "new", "--mirror", "http://127.0.0.1:9/dl", "--mirror", "dl")
    assert done.returncode == 0 and done.stderr == "", "the mirror in the network was not even tried"


def test_a_mirror_is_not_trusted(folder: Path) -> None:
    good(folder, "fetch", "--export", "dl")
    blob = str(lock_of(folder).images[0].layers[1].blob)
    path = folder / "dl" / blob.replace(":", "-")
    path.chmod(0o644)
    path.write_bytes(b"x" * path.stat().st_size)
    result = good(folder, "fetch", "--cache", "new", "--mirror", "dl")
    assert result["images"][0]["from"] == "source" and any("has a wrong sha256-" in note for note in result["notes"])
    good(folder, "build", "--locked", "--offline", "--cache", "new")


def test_with_mirror_only_nobody_else_is_asked(folder: Path) -> None:
    good(folder, "fetch", "--export", "dl")
    good(folder, "fetch", "--cache", "whole", "--mirror", "dl", "--mirror-only")
    blob = str(lock_of(folder).images[0].layers[1].blob)
    (folder / "dl" / blob.replace(":", "-")).unlink()
    said = refused(folder, "fetch", "--cache", "part", "--mirror", "dl", "--mirror-only", code=1)
    assert f"the mirrors have not got {blob}" in said
    good(folder, "fetch", "--cache", "part", "--mirror", "dl")
    good(folder, "fetch", "--cache", "part", "--mirror-only")


# --- what goes wrong


def test_a_transfer_that_breaks_is_resumed_by_the_next_run(tmp_path: Path, registry: Registry) -> None:
    big = ImageSpec([build([file("big", os.urandom(300_000))])], tags=["big:1"])
    push(registry.address, "big", oci_files([big], compression="none"), {"1": _top(big, "none")})
    with running_proxy(registry.address) as proxy:
        write_manifest(tmp_path, {"big:1": f"docker://{proxy.address}/big:1"}, **insecure(proxy.address))
        good(tmp_path, "lock")
        blob = str(lock_of(tmp_path).images[0].layers[0].blob)
        proxy.faults += [Fault(blob, cut_after=100_000), Fault(blob, times=0, status=404, body=b"{}")]
        assert refused(tmp_path, "fetch", code=1)
        proxy.faults.clear()
        before = len(proxy.ranges())
        good(tmp_path, "fetch")
        assert proxy.ranges()[before:] == ["bytes=100000-"], "the next run goes on where the first one ended"
        good(tmp_path, "build", "--locked", "--offline")


def test_two_fetches_at_once_share_the_work_and_both_succeed(folder: Path, registry: Registry) -> None:
    env = environment({"SHIPLAP_CACHE": str(folder / "cache")})
    both = [subprocess.Popen([*COMMAND, "fetch"], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    good(folder, "build", "--locked", "--offline")
