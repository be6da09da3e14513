"""What goes wrong between a client and a registry: each has one clear error, nothing wrong is kept, and what arrived is used again."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from archives import ImageSpec, oci_files
from commandline import COMMAND, environment
from faultyproxy import Fault, FaultyProxy, running_proxy
from layertar import item, layer
from registryserver import Registry, free_port, push, running_registry
from shiplap.core.blobs import BlobCorrupt
from shiplap.core.cache import Cache
from shiplap.core.errors import OutsideFailure, Refused, ShiplapError
from shiplap.core.progress import SILENT
from shiplap.core.reference import parse_reference
from shiplap.core.registry.client import RegistryClient, open_registry
from shiplap.core.registry.download import Wanted, download
from shiplap.core.registry.failures import (
    Broken,
    LoginNeeded,
    NotARegistry,
    NotInRegistry,
    RegistryFailed,
    ServerFailed,
    TooManyRequests,
    Unreachable,
)
from shiplap.core.registry.patience import Patience
from shiplap.core.registry.settings import RegistrySettings
from shiplap.core.sources import Access
from smalldisk import with_small_disk

# Three megabytes that no compression shortens, so that a transfer has a middle.
BIG = layer([item("big", data=b"".join(hashlib.sha512(b"%d" % number).digest() for number in range(48 << 10)))])
APP = oci_files([ImageSpec([BIG], ["app:1"])], compression="none")
BLOB, SIZE = "sha256:" + hashlib.sha256(BIG).hexdigest(), len(BIG)
HASTY = Patience(attempts=3, first_wait_seconds=0.01, longest_wait_seconds=2, connect_seconds=5, silence_seconds=1)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        push(running.address, "app", APP, {"1": top_of(APP)})
        yield running


def top_of(files: dict[str, object]) -> str:
    return str(json.loads(files["index.json"])["manifests"][0]["digest"])  # type: ignore[arg-type]


@pytest.fixture
def proxy(registry: Registry) -> Iterator[FaultyProxy]:
    with running_proxy(registry.address) as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@contextmanager
def client_of(address: str, cache: Cache, patience: Patience = HASTY) -> Iterator[RegistryClient]:
    access = Access(cache=cache, default_registry=RegistrySettings(tls_verify=False), environment={"HOME": str(cache.root.parent)})
    with open_registry(parse_reference(f"{address}/app:1"), access, patience=patience) as client:
        yield client


def manifest_error(proxy: FaultyProxy, cache: Cache) -> ShiplapError:
    with pytest.raises(ShiplapError) as caught, client_of(proxy.address, cache) as client:
        client.manifest("1", limit_bytes=1 << 20)
    return caught.value


def blob_error(proxy: FaultyProxy, cache: Cache) -> ShiplapError:
    with pytest.raises(ShiplapError) as caught, client_of(proxy.address, cache) as client:
        client.blob(BLOB, SIZE)
    assert not cache.has(BLOB)
    return caught.value


# --- what passes


@pytest.mark.parametrize(
    "fault",
    [
        Fault("/manifests/", times=2, status=503),
        Fault("/manifests/", times=2, status=429, headers={"Retry-After": "0"}),
        Fault("/manifests/", times=2, dead=True),
        Fault("/manifests/", times=2, cut_after=10),
        Fault("/manifests/", times=1, silence=3),
    ],
    ids=["503", "429", "dead", "cut", "silent"],
)
def test_a_failure_that_passes_is_not_seen(proxy: FaultyProxy, cache: Cache, fault: Fault) -> None:
    proxy.faults.append(fault)
    with client_of(proxy.address, cache) as client:
        assert client.manifest("1", limit_bytes=1 << 20).digest == top_of(APP)
    assert len(proxy.asked) == fault.times + 1


def test_a_blob_goes_on_where_it_broke(proxy: FaultyProxy, cache: Cache) -> None:
    proxy.faults.append(Fault("/blobs/", times=1, cut_after=1_000_000))
    seen: list[int] = []
    with client_of(proxy.address, cache) as client:
        client.blob(BLOB, SIZE, seen.append)
    assert proxy.ranges() == ["bytes=1000000-"]
    assert sum(seen) == SIZE
    assert cache.has(BLOB, SIZE)


def test_a_blob_goes_on_in_the_next_run(proxy: FaultyProxy, cache: Cache) -> None:
    proxy.faults += [Fault("/blobs/", times=1, cut_after=1_000_000), Fault("/blobs/", times=HASTY.attempts - 1, status=500)]
    error = blob_error(proxy, cache)
    assert isinstance(error, ServerFailed)
    with client_of(proxy.address, Cache(cache.root)) as client:
        seen: list[int] = []
        client.blob(BLOB, SIZE, seen.append)
    assert proxy.ranges()[-1] == "bytes=1000000-"
    assert seen[0] == 1_000_000 and sum(seen) == SIZE


def test_a_blob_that_moves_on_between_its_breaks_does_not_use_up_the_tries(proxy: FaultyProxy, cache: Cache) -> None:
    proxy.faults.append(Fault("/blobs/", times=5, cut_after=500_000))
    patient = Patience(attempts=2, first_wait_seconds=0.01, progress_bytes=400_000)
    with client_of(proxy.address, cache, patient) as client:
        client.blob(BLOB, SIZE)
    assert len(proxy.targets("/blobs/")) == 6


def test_a_server_without_ranges_sends_the_blob_again(proxy: FaultyProxy, cache: Cache) -> None:
    proxy.faults += [Fault("/blobs/", times=1, cut_after=1_000_000), Fault("/blobs/", times=1, no_ranges=True)]
    with client_of(proxy.address, cache) as client:
        client.blob(BLOB, SIZE)
    assert cache.has(BLOB, SIZE) and len(proxy.targets("/blobs/")) == 2


def test_a_damaged_beginning_of_an_earlier_run_is_thrown_away_once(proxy: FaultyProxy, cache: Cache) -> None:
    with cache.partial(BLOB, SIZE) as partial:
        assert partial is not None
        partial.write(b"damaged" * 100)
    with client_of(proxy.address, cache) as client:
        client.blob(BLOB, SIZE)
    assert [headers.get("Range") for _, target, headers in proxy.asked if "/blobs/" in target] == ["bytes=700-", None]


def test_a_whole_blob_that_was_not_finished_needs_no_request(proxy: FaultyProxy, cache: Cache) -> None:
    with cache.partial(BLOB, SIZE) as partial:
        assert partial is not None
        partial.write(BIG)
    with client_of(proxy.address, cache) as client:
        client.blob(BLOB, SIZE)
    assert proxy.targets("/blobs/") == [] and cache.has(BLOB, SIZE)


def test_a_redirect_is_followed_and_other_hosts_get_no_credentials(proxy: FaultyProxy, registry: Registry, cache: Cache) -> None:
    with running_proxy(registry.address) as elsewhere:
        location = f"http://{elsewhere.address}/v2/app/blobs/{BLOB}"
        proxy.faults += [
            Fault("/blobs/", times=1, status=401, headers={"Www-Authenticate": 'Basic realm="x"'}),
            Fault("/blobs/", times=1, status=307, headers={"Location": location}),
        ]
        auths = cache.root.parent / "auth.json"
        auths.write_text(json.dumps({"auths": {proxy.address: {"auth": "Y2k6c2VjcmV0"}}}))
        access = Access(
            cache=cache,
            default_registry=RegistrySettings(tls_verify=False, authfile=auths),
            environment={"HOME": str(cache.root.parent)},
        )
        with open_registry(parse_reference(f"{proxy.address}/app:1"), access, patience=HASTY) as client:
            client.blob(BLOB, SIZE)
        assert proxy.asked[-1][2]["Authorization"] == "Basic Y2k6c2VjcmV0"
        assert [headers.get("Authorization") for _, _, headers in elsewhere.asked] == [None]
    assert cache.has(BLOB, SIZE)


# --- what does not


def test_half_a_blob_again_and_again(proxy: FaultyProxy, cache: Cache) -> None:
    proxy.faults.append(Fault("/blobs/", times=0, cut_after=100))
    error = blob_error(proxy, cache)
    assert isinstance(error, Broken) and "before the end" in error.message
    assert len(proxy.targets("/blobs/")) == HASTY.attempts


def test_a_registry_that_dies_in_the_middle(tmp_path: Path, cache: Cache) -> None:
    with running_registry(tmp_path / "dying") as dying:
        push(dying.address, "app", APP, {"1": top_of(APP)})
        with client_of(dying.address, cache) as client:
            client.manifest("1", limit_bytes=1 << 20)
            dying.process.kill()
            dying.process.wait()
            with pytest.raises(Unreachable, match=f"{dying.address} refused the connection"):
                client.blob(BLOB, SIZE)
    assert not cache.has(BLOB)


@pytest.mark.parametrize(
    "fault", [Fault("/blobs/", times=0, flip=1_500_000), Fault("/blobs/", times=0, more=b"more")], ids=["other", "more"]
)
def test_wrong_bytes_are_refused_and_not_kept(proxy: FaultyProxy, cache: Cache, fault: Fault) -> None:
    proxy.faults.append(fault)
    error = blob_error(proxy, cache)
    assert isinstance(error, BlobCorrupt) and BLOB in error.message and proxy.address in error.message
    assert len(proxy.targets("/blobs/")) == 1
    assert not list(cache.root.glob("partial/*")) or all(path.stat().st_size == 0 for path in cache.root.glob("partial/*"))


def test_a_wrong_manifest_is_refused(proxy: FaultyProxy, cache: Cache) -> None:
    proxy.faults.append(Fault("/manifests/", times=0, flip=5))
    with pytest.raises(BlobCorrupt, match="a manifest with the digest"), client_of(proxy.address, cache) as client:
        client.manifest(top_of(APP), limit_bytes=1 << 20)


def test_a_manifest_is_read_up_to_its_limit(proxy: FaultyProxy, cache: Cache) -> None:
    proxy.faults.append(Fault("/manifests/", times=0, more=b" " * (3 << 20)))
    error = manifest_error(proxy, cache)
    assert isinstance(error, Refused) and "more than the 1048576 bytes" in error.message


def test_a_rate_limit_says_so_and_is_not_waited_for_longer_than_stated(proxy: FaultyProxy, cache: Cache) -> None:
    body = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit"}]}'
    proxy.faults.append(Fault("/manifests/", times=0, status=429, headers={"Retry-After": "3600"}, body=body))
    began = time.monotonic()
    error = manifest_error(proxy, cache)
    assert isinstance(error, TooManyRequests) and "pull rate limit" in error.message and "log in" in str(error.hint)
    assert time.monotonic() - began < 2 and len(proxy.asked) == 1


def test_a_server_error_is_tried_again_and_then_told(proxy: FaultyProxy, cache: Cache) -> None:
    proxy.faults.append(Fault("/manifests/", times=0, status=502))
    error = manifest_error(proxy, cache)
    assert isinstance(error, ServerFailed) and "502" in error.message
    assert len(proxy.asked) == HASTY.attempts


@pytest.mark.parametrize("status", [200, 404])
def test_a_web_page_is_no_registry(proxy: FaultyProxy, cache: Cache, status: int) -> None:
    proxy.faults.append(Fault("/manifests/", times=0, status=status, headers={"Content-Type": "text/html; charset=utf-8"}, body=b"<html>"))
    error = manifest_error(proxy, cache)
    assert isinstance(error, NotARegistry) and "web page" in error.message


def test_what_speaks_no_http_is_no_registry(cache: Cache) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"SSH-2.0-OpenSSH_9\r\n")
                    time.sleep(0.2)

        threading.Thread(target=greet, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(OutsideFailure) as caught, client_of(address, cache) as client:
            client.manifest("1", limit_bytes=1 << 20)
    assert address in caught.value.message


def test_what_is_not_there(proxy: FaultyProxy, cache: Cache) -> None:
    with client_of(proxy.address, cache) as client:
        with pytest.raises(NotInRegistry, match="MANIFEST_UNKNOWN") as caught:
            client.manifest("2", limit_bytes=1 << 20)
        assert f"{proxy.address}/app:2" in caught.value.message
        with pytest.raises(NotInRegistry, match="BLOB_UNKNOWN"):
            client.blob("sha256:" + "0" * 64, 10)


def test_nothing_that_listens(cache: Cache) -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(Unreachable, match=f"{address} refused the connection"), client_of(address, cache) as client:
        client.manifest("1", limit_bytes=1 << 20)


def test_a_host_that_has_no_address(cache: Cache) -> None:
    with pytest.raises(Unreachable, match=r"registry\.invalid:443 cannot be resolved"), client_of("registry.invalid", cache) as client:
        client.manifest("1", limit_bytes=1 << 20)


def test_a_server_that_accepts_and_says_nothing(cache: Cache) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        quick = Patience(attempts=1, connect_seconds=0.3, silence_seconds=0.3)
        with pytest.raises(RegistryFailed, match=f"{address} went silent"), client_of(address, cache, quick) as client:
            client.manifest("1", limit_bytes=1 << 20)


def test_a_server_that_lets_bytes_drip_is_left(proxy: FaultyProxy, cache: Cache) -> None:
    proxy.faults.append(Fault("/manifests/", times=0, drip=0.05))
    quick = Patience(attempts=1, silence_seconds=0.4)
    with pytest.raises(Broken, match=r"sends less than 1024 bytes in 0\.4 s"), client_of(proxy.address, cache, quick) as client:
        client.manifest("1", limit_bytes=1 << 20)


def test_what_is_forbidden_names_the_reason_of_the_registry(proxy: FaultyProxy, cache: Cache) -> None:
    body = b'{"errors":[{"code":"DENIED","message":"requested access to the resource is denied\\u001b[31m"}]}'
    proxy.faults.append(Fault("/manifests/", times=0, status=403, body=body))
    error = manifest_error(proxy, cache)
    assert isinstance(error, LoginNeeded) and "(403)" in error.message
    assert "DENIED requested access" in error.message and "\x1b" not in error.message
    assert len(proxy.asked) == 1


@pytest.mark.parametrize(
    ("head", "again"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Trailer: 1\r\n"),
    ],
    ids=["interim answers", "trailers"],
)
def test_lines_without_end_are_not_read_for_ever(cache: Cache, head: bytes, again: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    connection.sendall(head)
                    while True:
                        connection.sendall(again * 100)

        threading.Thread(target=send, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(NotARegistry, match=address), client_of(address, cache) as client:
            client.manifest("1", limit_bytes=1 << 20)
        assert time.monotonic() - began < 20


def test_redirects_in_a_circle_end(proxy: FaultyProxy, cache: Cache) -> None:
    proxy.faults.append(Fault("/manifests/", times=0, status=302, headers={"Location": "/v2/app/manifests/1"}))
    error = manifest_error(proxy, cache)
    assert "redirects again and again" in error.message and len(proxy.asked) == 6


@pytest.mark.parametrize("location", ["file:///etc/passwd", "//[bad", "http://[::1", "http://a:99999/"])
def test_a_redirect_to_something_else_than_http_is_refused(proxy: FaultyProxy, cache: Cache, location: str) -> None:
    proxy.faults.append(Fault("/manifests/", times=0, status=302, headers={"Location": location}))
    assert isinstance(manifest_error(proxy, cache), NotARegistry)


# --- several blobs


def test_blobs_come_in_parallel_and_one_failure_ends_the_others(registry: Registry, proxy: FaultyProxy, cache: Cache) -> None:
    tars = [layer([item(f"file{number}", data=b"x" * 1000)]) for number in range(6)]
    push(registry.address, "app", oci_files([ImageSpec(tars, ["app:2"])], compression="none"), {})
    wanted = [Wanted("sha256:" + hashlib.sha256(tar).hexdigest(), len(tar), f"layer {number}") for number, tar in enumerate(tars)]
    proxy.faults += [Fault(one.digest, times=1, silence=0.8, headers={}) for one in wanted[:4]]
    began = time.monotonic()
    patient = Patience(attempts=3, first_wait_seconds=0.01, silence_seconds=5)
    with client_of(proxy.address, cache, patient) as client:
        download(client, wanted, SILENT, lambda one: False)
    assert time.monotonic() - began < 3  # four silences of 0.8 s passed side by side
    assert all(cache.has(one.digest, one.size_bytes) for one in wanted)

    other = Cache(cache.root.parent / "other")
    proxy.faults[:] = [Fault(wanted[0].digest, times=0, status=404), Fault("/blobs/", times=0, silence=30)]
    proxy.counts.clear()
    began = time.monotonic()
    with pytest.raises(NotInRegistry), client_of(proxy.address, other, Patience()) as client:
        download(client, wanted, SILENT, lambda one: False)
    assert time.monotonic() - began < 3


def test_two_builds_at_once_fetch_a_blob_once(proxy: FaultyProxy, cache: Cache) -> None:
    proxy.faults.append(Fault("/blobs/", times=1, cut_after=2_000_000))
    failed: list[BaseException] = []

    def build() -> None:
        try:
            with client_of(proxy.address, Cache(cache.root)) as client:
                client.blob(BLOB, SIZE)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=build) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert cache.has(BLOB, SIZE)
    assert [headers.get("Range") for _, target, headers in proxy.asked if "/blobs/" in target] == [None, "bytes=2000000-"]


def test_ctrl_c_ends_a_silent_transfer_at_once_and_keeps_what_came(proxy: FaultyProxy, tmp_path: Path) -> None:
    proxy.faults.append(Fault("/blobs/" + BLOB, times=0, silence=60))
    words = [*COMMAND, "build", f"app:1=docker://{proxy.address}/app:1", "-o", str(tmp_path / "out"), "--tls-verify=false"]
    process = subprocess.Popen(
        words, env=environment({"SHIPLAP_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)}), stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 30
    while not proxy.targets("/blobs/" + BLOB):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.05)
    time.sleep(0.2)
    began = time.monotonic()
    process.send_signal(2)
    _, said = process.communicate(timeout=20)
    assert time.monotonic() - began < 5
    assert process.returncode == 130, said
    assert "interrupted" in said and "Traceback" not in said


def test_a_full_disk_is_told_and_leaves_the_cache_good(proxy: FaultyProxy, tmp_path: Path) -> None:
    words = [*COMMAND, "build", f"app:1=docker://{proxy.address}/app:1", "-o", str(tmp_path / "out"), "--tls-verify=false"]
    env = environment({"SHIPLAP_CACHE": str(tmp_path / "small/cache"), "HOME": str(tmp_path)})
    done = with_small_disk(tmp_path / "small", "1m", words, env)
    assert done.returncode == 1, done.stderr
    assert "No space left on device" in done.stderr and "Traceback" not in done.stderr
