"""What goes wrong on the way gives one clear error, writes nothing, and leaves the cache good: the next run succeeds."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from archives import ImageSpec, oci_files, oci_layout
from commandline import COMMAND, environment
from faultyproxy import Fault, FaultyProxy, running_proxy
from images import file
from layertar import build
from locks import good, lock_of, refused, run, store_sums, write_manifest
from registryserver import (
    PASSWORD,
    USER,
    Authority,
    Registry,
    authfile,
    htpasswd_auth,
    make_authority,
    push,
    running_registry,
    skopeo_copy,
)
from smalldisk import with_small_disk

# Bytes that no compressor makes smaller: transfers of a size that can break in the middle.
NOISE = bytes((number * 7919 ^ number >> 5) & 0xFF for number in range(3 << 20))
APP = ImageSpec([build([file("noise", NOISE)]), build([file("small")])], tags=["app:1"])


def manifest_digest(files: dict[str, Any]) -> str:
    return str(json.loads(files["index.json"])["manifests"][0]["digest"])


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as one:
        files: dict[str, Any] = oci_files([APP], compression="none")
        push(one.address, "app", files, {"1": manifest_digest(files)})
        yield one


@pytest.fixture
def proxy(registry: Registry) -> Iterator[FaultyProxy]:
    with running_proxy(registry.address) as one:
        yield one


def asking(folder: Path, address: str, name: str = "app:1") -> None:
    write_manifest(folder, {"app:1": f"docker://{address}/{name}"}, registries={address: {"tls-verify": False}})


def whole_cache(folder: Path) -> None:
    """Everything in the cache is what its name says."""
    assert good(folder, "cache", "verify")


# --- no way in


def test_401_names_the_registry_and_a_login_helps(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry", auth=htpasswd_auth(tmp_path / "auth")) as registry:
        asking(tmp_path, registry.address)
        text = refused(tmp_path, "lock", code=1)
        assert registry.address in text and "401" in text and "login" in text.lower()
        assert not (tmp_path / "shiplap.lock.yaml").exists()
        login = authfile(tmp_path / "auth.json", {registry.address: f"{USER}:{PASSWORD}"})
        oci_layout(tmp_path / "layout", [APP], compression="none")
        skopeo_copy(f"oci:{tmp_path}/layout:app:1", f"docker://{registry.address}/app:1", f"--dest-authfile={login}")
        good(tmp_path, "lock", "--authfile", str(login))
        assert "401" in refused(tmp_path, "build", "--locked", code=1)
        good(tmp_path, "fetch", env={"REGISTRY_AUTH_FILE": str(login)})
        good(tmp_path, "build", "--locked", "--offline")


def test_404_names_what_is_not_there(tmp_path: Path, registry: Registry) -> None:
    asking(tmp_path, registry.address, "app:no-such-tag")
    text = refused(tmp_path, "lock", code=1)
    assert "app:no-such-tag" in text and "404" in text
    asking(tmp_path, registry.address)
    good(tmp_path, "lock")


def test_a_manifest_that_went_away_is_told_and_the_tag_s_new_image_is_not_taken(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry:
        first: dict[str, Any] = oci_files([APP])
        push(registry.address, "app", first, {"1": manifest_digest(first)})
        asking(tmp_path, registry.address)
        good(tmp_path, "lock")
        newer = ImageSpec([build([file("newer")])])
        second: dict[str, Any] = oci_files([newer])
        push(registry.address, "app", second, {"1": manifest_digest(second)})
        subprocess.run(
            ["curl", "-sfX", "DELETE", f"http://{registry.address}/v2/app/manifests/{manifest_digest(first)}"], check=True, timeout=30
        )
        result = run(tmp_path, "build", "--locked", "--cache", "empty")
        assert result["exit"] == 2 and newer.config_digest in result["error"]["message"] and APP.config_digest in result["error"]["message"]
        assert any("404" in note and "held against the lock instead" in note for note in result["notes"])


def test_an_unknown_authority_is_refused_until_it_is_named(tmp_path: Path) -> None:
    authority: Authority = make_authority(tmp_path / "authority")
    with running_registry(tmp_path / "registry", tls=authority) as registry:
        write_manifest(tmp_path, {"app:1": f"docker://{registry.address}/app:1"})
        text = refused(tmp_path, "lock", code=1)
        assert "certificate" in text and "--cert-dir" in text
        (tmp_path / "certs").mkdir()
        (tmp_path / "certs/ca.crt").write_bytes(authority.certificate.read_bytes())
        for words in (("--cert-dir", "certs"), ("--tls-verify=false",), ("--tls-verify", "false")):
            assert "404" in refused(tmp_path, "lock", *words, code=1), "through TLS, to a registry that is empty"


# --- something breaks on the way


FAULTS: dict[str, tuple[Fault, int]] = {
    "wrong bytes": (Fault("BLOB", times=0, flip=1000), 2),
    "half a blob": (Fault("BLOB", times=0, cut_after=100_000, no_ranges=True), 1),
    "the blob is gone": (Fault("BLOB", times=0, status=404, body=b"{}"), 1),
}


@pytest.mark.parametrize(("verb", "what"), [*(("fetch", what) for what in FAULTS), ("build", "wrong bytes")])
def test_a_broken_transfer_leaves_the_cache_good(tmp_path: Path, proxy: FaultyProxy, verb: str, what: str) -> None:
    asking(tmp_path, proxy.address)
    good(tmp_path, "lock")
    blob = str(lock_of(tmp_path).images[0].layers[0].blob)
    fault, code = FAULTS[what]
    proxy.faults.append(replace(fault, path=f"/blobs/{blob}"))
    text = refused(tmp_path, verb, code=code)
    assert blob[:19] in text or proxy.address in text
    assert not (tmp_path / "shiplap-out").exists()
    assert not (tmp_path / "cache/blobs/sha256" / blob[7:]).exists()
    whole_cache(tmp_path)
    proxy.faults.clear()
    good(tmp_path, verb)
    whole_cache(tmp_path)


def test_a_wrong_manifest_is_refused(tmp_path: Path, proxy: FaultyProxy) -> None:
    asking(tmp_path, proxy.address)
    good(tmp_path, "lock")
    digest = lock_of(tmp_path).images[0].manifest_digests[0]
    proxy.faults.append(Fault(f"/manifests/{digest}", times=0, flip=10))
    assert digest in refused(tmp_path, "build", "--locked", "--cache", "empty")
    proxy.faults.clear()
    good(tmp_path, "build", "--locked", "--cache", "empty")


def test_a_registry_that_dies_is_told_and_the_next_run_goes_on(tmp_path: Path) -> None:
    files: dict[str, Any] = oci_files([APP], compression="none")
    with running_registry(tmp_path / "registry") as registry:
        push(registry.address, "app", files, {"1": manifest_digest(files)})
        asking(tmp_path, registry.address)
        good(tmp_path, "lock")
        port = int(registry.address.rpartition(":")[2])
    text = refused(tmp_path, "fetch", code=1)
    assert registry.address in text and "refused the connection" in text
    with running_registry(tmp_path / "registry", port=port):
        good(tmp_path, "fetch")
    good(tmp_path, "build", "--locked", "--offline")


def test_a_full_disk_under_the_cache(tmp_path: Path, registry: Registry) -> None:
    """The same small file system throughout: first without room, then with it."""
    asking(tmp_path, registry.address)
    good(tmp_path, "lock", "--cache", "elsewhere")
    script = (
        'head -c 4m /dev/zero > small/filler; if "$@" fetch; then exit 50; fi; '
        'rm small/filler; "$@" fetch && "$@" cache verify && "$@" build --locked --offline'
    )
    env = environment({"SHIPLAP_CACHE": str(tmp_path / "small/cache")})
    done = with_small_disk(tmp_path / "small", "6m", ["sh", "-c", f"cd {tmp_path}; {script}", "sh", *COMMAND], env)
    assert done.returncode == 0, done.stdout + done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and "No space left on device" in errors[0] and "cache" in errors[0]


def test_two_builds_at_once_share_one_cache(tmp_path: Path, registry: Registry) -> None:
    asking(tmp_path, registry.address)
    good(tmp_path, "lock", "--cache", "elsewhere")
    env = environment({"SHIPLAP_CACHE": str(tmp_path / "cache")})
    asked = len(registry.requests())
    both = [
        subprocess.Popen([*COMMAND, "build", "--locked", "--json", "-o", f"out{n}"], cwd=tmp_path, env=env, stdout=subprocess.PIPE)
        for n in range(2)
    ]
    results = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert store_sums(results[0]) == store_sums(results[1])
    blobs = [one for one in registry.requests()[asked:] if one.startswith("GET") and "/blobs/" in one]
    assert len(blobs) == len(set(blobs)) == 3, "each blob came once"
    whole_cache(tmp_path)


def test_a_build_that_is_killed_while_it_fetches_leaves_the_cache_good(tmp_path: Path, proxy: FaultyProxy) -> None:
    asking(tmp_path, proxy.address)
    good(tmp_path, "lock")
    blob = str(lock_of(tmp_path).images[0].layers[0].blob)
    proxy.faults.append(Fault(f"/blobs/{blob}", times=0, silence=60))
    env = environment({"SHIPLAP_CACHE": str(tmp_path / "cache")})
    process = subprocess.Popen([*COMMAND, "build", "--locked"], cwd=tmp_path, env=env, stderr=subprocess.DEVNULL)
    while not proxy.targets(blob):
        assert process.poll() is None
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            pass
    process.kill()
    process.wait()
    proxy.faults.clear()
    whole_cache(tmp_path)
    good(tmp_path, "build", "--locked")


def test_a_lock_that_cannot_be_written_is_named_and_not_its_temporary_file(tmp_path: Path) -> None:
    write_manifest(tmp_path, {"app:1": "oci:layout"})
    oci_layout(tmp_path / "layout", [APP])
    said = refused(tmp_path, "lock", "--lock", "nowhere/my.lock.yaml")
    assert said.startswith("cannot write the lock nowhere/my.lock.yaml: No such file or directory") and ".my.lock" not in said
