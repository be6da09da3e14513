"""The manifest's keys about the device: what is read, and what does not fit together."""

from __future__ import annotations

import json
from typing import Any

import pytest
from manifests import whole
from shiplap.core.manifest import Manifest, ManifestError, parse_manifest, to_data
from shiplap.core.manifest.device import DataRootSettings, Health, kept_in_data_root

Data = dict[str, Any]


def manifest(**keys: Any) -> Data:
    return {"version": 1, "images": [{"ref": "app:1"}, {"ref": "db:1"}]} | {key.replace("_", "-"): value for key, value in keys.items()}


def read(data: Data) -> Manifest:
    return parse_manifest(json.dumps(data).encode(), "shiplap.yaml")


def problems(data: Data) -> dict[str, str]:
    with pytest.raises(ManifestError) as caught:
        read(data)
    return {problem.path: problem.message for problem in caught.value.problems}


def container(**keys: Any) -> Data:
    return {"name": "app", "image": "app:1"} | {key.replace("_", "-"): value for key, value in keys.items()}


def test_without_a_word_the_data_root_is_volatile_and_nothing_starts() -> None:
    device = read(manifest()).device
    assert device.data_root == DataRootSettings("/var/lib/docker", None, None, None)
    assert (device.init, device.containers, device.placement, device.engine_config) == (("systemd", "sysv"), (), "file", "{}")


@pytest.mark.parametrize("seal", ["auto", "never"])
def test_a_store_can_lie_unpacked_in_the_root(seal: str) -> None:
    assert read(manifest(placement="tree", verity={"seal": seal})).device.placement == "tree"


def test_whiteouts_can_be_explicit_and_say_nothing_of_an_archive() -> None:
    wanted = {"squashfs": {"whiteouts": "explicit"}}
    assert read(manifest(**wanted)).squashfs.whiteouts == "explicit"
    assert read(manifest(mode="archive", **wanted)).mode == "archive"
    images = [{"ref": "app:1", "allow-lost-xattrs": ["/bin/ping"]}]
    assert read(manifest(**wanted) | {"images": images}).images[0].allow_lost_xattrs == ("/bin/ping",)


def test_a_container_keeps_every_word() -> None:
    device = read(whole()).device
    one = device.containers[0]
    assert (str(one.image), one.env, one.cpus, one.memory_bytes) == ("docker.io/library/redis:7", (("A", "b"), ("N", "1")), "0.5", 64 << 20)
    assert one.health == Health("redis-cli ping", "30s", "5s", 3, "1m30s")
    assert one.wait_for == ("/data/ready",)
    assert device.data_root.size_bytes == 256 << 20


def test_what_is_read_is_written_and_read_again_alike() -> None:
    for data in (whole(), manifest(), manifest(containers=[container(), container(name="db", image="db:1", after=["app"], cpus=2)])):
        assert read(to_data(read(data))) == read(data)


@pytest.mark.parametrize(
    ("volume", "kept"),
    [("data:/x", True), ("/x", True), ("data:/x:ro", True), ("/data/x:/x", False), ("/data/x:/x:ro", False)],
)
def test_named_and_anonymous_volumes_are_kept_in_the_data_root(volume: str, kept: bool) -> None:
    assert kept_in_data_root(volume) is kept
    data = manifest(containers=[container(volumes=[volume])])
    if not kept:
        assert read(data).device.data_root.persistence is None
        return
    found = problems(data)
    assert list(found) == ["data-root"]
    assert "persistence: volatile" in found["data-root"] and "persistence: persistent" in found["data-root"]
    for choice in ("volatile", "persistent"):
        assert read(data | {"data-root": {"persistence": choice}}).device.data_root.persistence == choice


@pytest.mark.parametrize(
    ("keys", "path", "message"),
    [
        ({"data_root": {"persistence": "persistent", "size": "1M"}}, "data-root.size", "a persistent one has its partition's"),
        ({"data_root": {"path": "/usr/share/shiplap/data"}}, "data-root.path", "lies in the store-path"),
        ({"data_root": {"volumes-path": "/var/lib/docker/volumes"}}, "data-root.volumes-path", "lies in the data-root"),
        ({"data_root": {"volumes-path": "/var/lib/docker"}}, "data-root.volumes-path", "lies in the data-root"),
        ({"data_root": {"path": "/var/my docker"}}, "data-root.path", "write an absolute path"),
        ({"data_root": {"path": "/"}}, "data-root.path", "write an absolute path"),
        ({"data_root": {"path": "/var/../etc"}}, "data-root.path", "write an absolute path"),
        ({"verity": {"check": "full", "seal": "never"}}, "verity.check", "is not sealed"),
        ({"verity": {"check": "full"}, "outputs": ["squashfs"]}, "verity.check", "is not sealed"),
        ({"verity": {"check": "sha256", "seal": "always"}}, "verity.seal", "needs dm-verity"),
        ({"verity": {"seal": "always"}, "outputs": ["squashfs"]}, "verity.seal", "add `verity`"),
        ({"verity": {"on-corruption": "panic", "seal": "never"}}, "verity.on-corruption", "not sealed"),
        ({"placement": "partition", "outputs": ["squashfs"]}, "placement", "add `verity`"),
        ({"placement": "tree", "outputs": ["erofs"]}, "placement", "use `squashfs`"),
        ({"placement": "tree", "verity": {"check": "full"}}, "verity.check", "with its root file system"),
        ({"placement": "tree", "verity": {"check": "sha256"}}, "verity.check", "with its root file system"),
        ({"placement": "tree", "verity": {"seal": "always"}}, "verity.seal", "with its root file system"),
        ({"placement": "tree", "verity": {"on-corruption": "panic"}}, "verity.on-corruption", "with its root file system"),
        ({"mode": "archive", "placement": "partition"}, "placement", "an archive is a file"),
        ({"mode": "archive", "placement": "tree"}, "placement", "an archive is a file"),
        ({"squashfs": {"whiteouts": "explicit"}, "driver": "vfs"}, "squashfs.whiteouts", "whole trees"),
        ({"squashfs": {"whiteouts": "explicit"}, "outputs": ["erofs"]}, "squashfs.whiteouts", "is for `squashfs`"),
        ({"mode": "archive", "verity": {"check": "full"}}, "verity.check", "use `check: sha256`"),
        ({"mode": "archive", "verity": {"seal": "always"}}, "verity.seal", "cannot be sealed"),
        ({"engine_config": {"storage-driver": "vfs"}}, "engine-config.storage-driver", "at odds with `driver`"),
        ({"engine_config": {"data-root": "/x"}}, "engine-config.data-root", "at odds with `data-root.path`"),
        ({"outputs": ["tar"], "containers": [container()]}, "containers", "add `squashfs`"),
        ({"containers": [container(), container()]}, "containers[1].name", "already"),
        ({"containers": [container(image="other:1")]}, "containers[0].image", "none of the manifest's"),
        ({"containers": [container(image="UPPER")]}, "containers[0].image", ""),
        ({"containers": [container(after=["nobody"])]}, "containers[0].after", "there is no container"),
        ({"containers": [container(after=["b2"]), container(name="b2", after=["app"])]}, "containers[0].after", "app, b2"),
        ({"containers": [container(after=["app"])]}, "containers[0].after", "wait for each other"),
        ({"containers": [container(env={"A=B": "1"})]}, 'containers[0].env."A=B"', "no name of an environment variable"),
        ({"containers": [container(wait_for=["/dev/tty*"])]}, "containers[0].wait-for[0]", "special characters"),
        ({"containers": [container(wait_for=["relative"])]}, "containers[0].wait-for[0]", "no absolute path"),
        ({"containers": [container(health={"interval": "1s"})]}, "containers[0].health.cmd", "is missing"),
        ({"containers": [container(health={"cmd": "x", "interval": "soon"})]}, "containers[0].health.interval", "write a time"),
        ({"containers": [container(health={"disable": True, "cmd": "x"})]}, "containers[0].health.disable", "nothing else"),
        ({"containers": [container(health={"disable": False, "cmd": "x"})]}, "containers[0].health.disable", "leave it out"),
        ({"containers": [container(ports=["80"], network="host")]}, "containers[0].ports", "from a bridge"),
        ({"containers": [container(ports=["80", "70000:80"])]}, "containers[0].ports[1]", "1 to 65535"),
        ({"containers": [container(ports=["300.1.1.1:80:80"])]}, "containers[0].ports[0]", "an IP address"),
        ({"containers": [container(ports=[8080])]}, "containers[0].ports[0]", "must be text"),
        ({"containers": [container(ports=[":80"])]}, "containers[0].ports[0]", "write a port"),
        ({"containers": [container(labels={"io.shiplap.x": "x"})]}, 'containers[0].labels."io.shiplap.x"', "the target kit's"),
        ({"containers": [container(labels={"a=b": "x"})]}, 'containers[0].labels."a=b"', "cannot be a label"),
        ({"containers": [container(entrypoint="")]}, "containers[0].entrypoint", "is empty"),
        ({"containers": [container(entrypoint='["a"]')]}, "containers[0].entrypoint", "one program"),
        ({"containers": [container(memory="9999999999T")]}, "containers[0].memory", "out of range"),
        ({"containers": [container(name="-rf")]}, "containers[0].name", "write at least two letters"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_named(keys: Data, path: str, message: str) -> None:
    found = problems(manifest(**keys))
    assert list(found) == [path]
    assert message in found[path]


@pytest.mark.parametrize(("engine", "driver"), [("podman", "overlay"), ("docker", "vfs")])
def test_every_engine_and_driver_has_the_device_s_keys(engine: str, driver: str) -> None:
    keys = {
        "data-root": {"path": "/data/x", "persistence": "volatile", "size": "1M", "volumes-path": "/data/v"}, "placement": "partition",
        "verity": {"check": "full", "on-corruption": "panic"}, "target": {"init": ["sysv"]}, "containers": [container(volumes=["data:/x"])],
    }  # fmt: skip
    device = read(manifest(engine=engine, driver=driver) | keys).device
    assert (device.data_root.path, device.init, device.placement) == ("/data/x", ("sysv",), "partition")


def test_the_data_root_is_where_the_engine_has_its_own() -> None:
    assert read(manifest(engine="podman")).device.data_root.path == "/var/lib/containers/storage"
    assert problems(manifest(engine="podman", store_path="/var/lib/containers/storage/x")).keys() == {"store-path"}
    assert read(manifest(engine="podman", store_path="/var/lib/docker/x")).store_path == "/var/lib/docker/x"


@pytest.mark.parametrize(
    ("keys", "path", "message"),
    [
        ({"engine_config": {"storage": {"driver": "vfs"}}}, "engine-config.storage.driver", "at odds with `driver`, which is overlay"),
        ({"engine_config": {"storage": {"graphroot": "/x"}}}, "engine-config.storage.graphroot", "at odds with `data-root.path`"),
        ({"engine_config": {"storage": 5}}, "engine-config.storage", "is a table of storage.conf"),
        ({"target": {"quadlet": True, "init": ["sysv"]}}, "target.quadlet", "has no systemd"),
        (
            {"target": {"quadlet": True}, "containers": [container(volumes=["/kept"])], "data_root": {"persistence": "persistent"}},
            "containers[0].volumes[0]", "write NAME:/kept",
        ),
    ],
)  # fmt: skip
def test_what_podman_cannot_do_is_named(keys: Data, path: str, message: str) -> None:
    found = problems(manifest(engine="podman", **keys))
    assert list(found) == [path]
    assert message in found[path]
    assert list(problems(manifest(target={"quadlet": True}))) == ["target.quadlet"]


def test_all_the_sealing_that_fits_is_accepted() -> None:
    for check, seal, outputs in (
        ("lazy", "auto", None), ("lazy", "never", None), ("lazy", "always", None), ("full", "auto", None), ("full", "always", None),
        ("sha256", "auto", None), ("sha256", "never", None), ("lazy", "auto", ["squashfs"]), ("sha256", "auto", ["squashfs"]),
    ):  # fmt: skip
        assert read(manifest(verity={"check": check, "seal": seal}) | ({"outputs": outputs} if outputs else {}))
