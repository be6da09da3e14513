"""``docker://`` against a real registry: the image is the one that was pushed, by tag, by digest, from an index, from the cache."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from archives import DOCKER, OCI, ImageSpec, IndexSpec, dump, oci_files, oci_layout, sha256
from faultyproxy import Fault, running_proxy
from layertar import item, layer
from openedsources import layer_tars
from registryserver import Registry, free_port, push, running_registry, skopeo_copy
from requirement import require
from shiplap.core.blobs import BlobCorrupt, SourceInvalidContent
from shiplap.core.cache import Cache
from shiplap.core.errors import Refused
from shiplap.core.image import Image
from shiplap.core.limits import Limits
from shiplap.core.platform import parse_platform
from shiplap.core.registry.failures import NotInRegistry
from shiplap.core.registry.settings import RegistrySettings
from shiplap.core.sources import Access, OfflineRefused, open_images, parse_source
from shiplap.core.sources.registry import fetch_blobs, fetch_layers, resolve
from shiplap.core.sources.selection import NotInSource

BASE = layer([item("bin", type="5"), item("bin/app", data=b"application" * 5000, mode=0o755)])
TOP = layer([item("etc", type="5"), item("etc/app.conf", data=b"verbose")])
APP = ImageSpec([BASE, TOP], ["app:1"])
PLATFORMS = [
    ImageSpec([BASE, layer([item(name.replace("/", "-"))])], platform=name)
    for name in ("linux/amd64", "linux/arm64/v8", "linux/arm/v7", "linux/arm/v6")
]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def access(tmp_path: Path) -> Access:
    return plain_access(tmp_path / "cache", tmp_path)


def plain_access(cache: Path, home: Path, **more: object) -> Access:
    """For registries with plain HTTP, without any of this user's own settings."""
    fields: dict[str, object] = {"default_registry": RegistrySettings(tls_verify=False), **more}
    return Access(cache=Cache(cache), environment={"HOME": str(home), "PATH": "/usr/bin:/bin"}, **fields)  # type: ignore[arg-type]


@contextmanager
def opened(source: str, access: Access, platform: str | None = None, limits: Limits | None = None) -> Iterator[Image]:
    wanted = parse_platform(platform) if platform else None
    with open_images(parse_source(source), platform=wanted, limits=limits or Limits(), access=access) as images:
        (image,) = images
        yield image


def test_an_image_that_skopeo_pushed_comes_back_with_the_config_and_the_layers_that_skopeo_gets(
    registry: Registry, access: Access, tmp_path: Path
) -> None:
    require("skopeo")
    layout = oci_layout(tmp_path / "layout", [APP])
    name = f"{registry.address}/team/app:1"
    skopeo_copy(f"oci:{layout}:app:1", f"docker://{name}")
    theirs = tmp_path / "theirs"
    skopeo_copy(f"docker://{name}", f"oci:{theirs}:app")
    index = json.loads((theirs / "index.json").read_text())
    manifest = json.loads((theirs / "blobs" / index["manifests"][0]["digest"].replace(":", "/")).read_text())
    with opened(f"docker://{name}", access) as image:
        assert image.config_digest == manifest["config"]["digest"]
        assert [layer.blob.digest for layer in image.layers] == [one["digest"] for one in manifest["layers"]]
        assert layer_tars(image) == [BASE, TOP]
        assert image.references == (name,)
        assert image.manifest_digest == index["manifests"][0]["digest"] and image.index_digest is None
        assert image.source == f"docker://{name}"


@pytest.mark.parametrize("media", [OCI, DOCKER], ids=["oci", "docker"])
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_every_compression_and_family_of_media_types_is_the_same_image(
    registry: Registry, access: Access, media: dict[str, str], compression: str
) -> None:
    name = f"app-{compression}-{'oci' if media is OCI else 'docker'}"
    push(registry.address, name, oci_files([APP], compression=compression, media=media))
    with opened(f"{registry.address}/{name}", access) as image:
        assert layer_tars(image) == [BASE, TOP]
        assert image.config_digest == sha256(image.config)


@pytest.mark.parametrize("platform", ["linux/amd64", "linux/arm64", "linux/arm/v7", "linux/arm/v6"])
def test_of_an_index_only_the_manifest_and_config_of_the_platform_are_fetched(registry: Registry, access: Access, platform: str) -> None:
    top = push(registry.address, "multi", oci_files([IndexSpec(PLATFORMS, attestations=True)]))
    before = len(registry.requests())
    resolved = resolve(
        parse_source(f"docker://{registry.address}/multi"), platform=parse_platform(platform), limits=Limits(), access=access
    )
    asked = [line for line in registry.requests()[before:] if "/v2/multi/" in line]
    assert asked == [
        "GET /v2/multi/manifests/latest",
        f"GET /v2/multi/manifests/{resolved.manifest.digest}",
        f"GET /v2/multi/blobs/{resolved.config_digest}",
    ]
    assert [one.digest for one in resolved.indexes] == [top]
    assert resolved.indexes[0].media_type == OCI["index"] and sha256(resolved.indexes[0].raw) == top
    assert sha256(resolved.manifest.raw) == resolved.manifest.digest and resolved.manifest.media_type == OCI["manifest"]
    assert resolved.platform.matches(parse_platform(platform))
    described = json.loads(resolved.manifest.raw)["layers"]
    found = [(one.digest, one.size_bytes, one.media_type) for one in resolved.layers]
    assert found == [(one["digest"], one["size"], one["mediaType"]) for one in described]
    assert [one.diff_id for one in resolved.layers] == json.loads(resolved.config)["rootfs"]["diff_ids"]
    fetch_layers(resolved, access)
    assert access.cache is not None and all(access.cache.has(one.digest, one.size_bytes) for one in resolved.layers)


def test_both_digests_of_an_image_from_an_index_are_known(registry: Registry, access: Access) -> None:
    top = push(registry.address, "both", oci_files([IndexSpec(PLATFORMS[:2], nested=True)]))
    with opened(f"{registry.address}/both", access, "linux/arm64/v8") as image:
        assert image.index_digest == top
        assert image.manifest_digest not in (None, top)
        assert layer_tars(image) == list(PLATFORMS[1].layers)


def test_a_platform_that_an_index_has_not_is_refused_with_a_list_of_what_it_has(registry: Registry, access: Access) -> None:
    push(registry.address, "some", oci_files([IndexSpec(PLATFORMS)]))
    with (
        pytest.raises(NotInSource, match="no image for linux/riscv64") as caught,
        opened(f"{registry.address}/some", access, "linux/riscv64"),
    ):
        pass
    assert all(name in caught.value.message for name in ("linux/amd64", "linux/arm64/v8", "linux/arm/v6"))


def test_an_image_for_another_platform_is_named_as_it_was_asked_for(registry: Registry, access: Access) -> None:
    push(registry.address, "alone", oci_files([APP]))
    with pytest.raises(NotInSource) as caught, opened(f"{registry.address}/alone", access, "linux/riscv64"):
        pass
    assert caught.value.message == f"{registry.address}/alone:latest is not for linux/riscv64; it is for linux/amd64"


def test_without_a_platform_an_index_with_several_is_refused(registry: Registry, access: Access) -> None:
    push(registry.address, "several", oci_files([IndexSpec(PLATFORMS)]))
    with pytest.raises(NotInSource, match="images for several platforms"), opened(f"{registry.address}/several", access):
        pass


def test_an_index_that_does_not_say_the_platforms_is_looked_into(registry: Registry, access: Access) -> None:
    push(registry.address, "silent", oci_files([IndexSpec(PLATFORMS, declared=[None] * len(PLATFORMS))]))
    with opened(f"{registry.address}/silent", access, "linux/arm/v6") as image:
        assert layer_tars(image) == list(PLATFORMS[3].layers)


def test_a_digest_reference_is_the_index_or_the_manifest_and_names_the_image_so(registry: Registry, access: Access) -> None:
    top = push(registry.address, "pinned", oci_files([IndexSpec(PLATFORMS[:2])]))
    with opened(f"{registry.address}/pinned@{top}", access, "linux/amd64") as image:
        assert image.index_digest == top and image.references == (f"{registry.address}/pinned@{top}",)
        manifest = image.manifest_digest
    with opened(f"{registry.address}/pinned:old@{manifest}", access) as image:
        assert image.index_digest is None and image.manifest_digest == manifest
        assert image.references == (f"{registry.address}/pinned:old", f"{registry.address}/pinned@{manifest}")


def test_a_pinned_image_of_the_cache_opens_offline_without_any_network(tmp_path: Path) -> None:
    cache, dead = tmp_path / "cache", f"127.0.0.1:{free_port()}"
    with running_registry(tmp_path / "registry") as running:
        top = push(running.address, "app", oci_files([IndexSpec(PLATFORMS[:2])]))
        with opened(f"{running.address}/app", plain_access(cache, tmp_path), "linux/amd64"):
            pass
    offline = plain_access(cache, tmp_path, offline=True)
    with opened(f"{dead}/app@{top}", offline, "linux/amd64") as image:
        assert layer_tars(image) == list(PLATFORMS[0].layers)
    for asked, platform in ((f"{dead}/app@{top}", "linux/arm64"), (f"{dead}/app", "linux/amd64"), (f"{dead}/app@sha256:{'0' * 64}", None)):
        with pytest.raises(OfflineRefused) as caught, opened(asked, offline, platform):
            pass
        assert "shiplap fetch" in str(caught.value.hint)
    with opened(f"{dead}/app@{top}", plain_access(cache, tmp_path), "linux/amd64"):
        pass  # nor does it need the network when it might have it


def test_what_is_missing_of_a_pinned_image_is_fetched_and_the_rest_is_not(registry: Registry, access: Access) -> None:
    top = push(registry.address, "partly", oci_files([APP]))
    with opened(f"{registry.address}/partly@{top}", access) as image:
        first = image.layers[0].blob.digest
    assert access.cache is not None and first is not None
    access.cache.discard(first)
    before = len(registry.requests())
    with opened(f"{registry.address}/partly@{top}", access) as image:
        assert layer_tars(image) == [BASE, TOP]
    assert [line for line in registry.requests()[before:] if "partly" in line] == [f"GET /v2/partly/blobs/{first}"]


def test_a_damaged_document_of_the_cache_is_fetched_again(registry: Registry, tmp_path: Path) -> None:
    top = push(registry.address, "damaged", oci_files([APP]))
    with opened(f"{registry.address}/damaged@{top}", plain_access(tmp_path / "cache", tmp_path)) as image:
        config = image.config_digest
    for digest in (top, config):
        path = tmp_path / "cache/blobs" / digest.replace(":", "/")
        path.chmod(0o644)
        path.write_bytes(b"x" + path.read_bytes()[1:])
    with opened(f"{registry.address}/damaged@{top}", plain_access(tmp_path / "cache", tmp_path)) as image:
        assert layer_tars(image) == [BASE, TOP]


def test_a_source_without_a_cache_keeps_nothing(registry: Registry, tmp_path: Path) -> None:
    push(registry.address, "uncached", oci_files([APP]))
    bare = Access(default_registry=RegistrySettings(tls_verify=False), environment={"HOME": str(tmp_path)})
    with opened(f"{registry.address}/uncached", bare) as image:
        assert layer_tars(image) == [BASE, TOP]


def test_single_blobs_are_fetched_for_a_lock(registry: Registry, access: Access) -> None:
    files = oci_files([APP], compression="none")
    push(registry.address, "blobs", files)
    wanted = [(sha256(tar), len(tar), "a layer") for tar in (BASE, TOP)]
    fetch_blobs(parse_source(f"docker://{registry.address}/blobs"), wanted, access)
    assert access.cache is not None and sorted(access.cache.blobs()) == sorted((digest, size) for digest, size, _ in wanted)


# --- refused


def test_a_name_or_a_tag_that_is_not_there(registry: Registry, access: Access) -> None:
    push(registry.address, "there", oci_files([APP]))
    for name in ("there:2", "absent:1", f"there@sha256:{'0' * 64}"):
        with pytest.raises(NotInRegistry, match="404") as caught, opened(f"{registry.address}/{name}", access):
            pass
        assert name in caught.value.message


def test_a_schema_1_manifest_and_other_documents_are_refused(registry: Registry, access: Access) -> None:
    documents = {
        "unknown type": {"schemaVersion": 2, "mediaType": "application/vnd.example.thing.v1+json", "config": {}, "layers": []},
        "schema 1": {"schemaVersion": 1, "name": "app", "tag": "1", "architecture": "amd64", "fsLayers": [], "history": []},
    }
    for said, document in documents.items():
        raw = dump(document)
        with running_proxy(registry.address) as proxy:
            kind = str(document.get("mediaType", "application/vnd.docker.distribution.manifest.v1+prettyjws"))
            proxy.faults.append(Fault("/manifests/", times=0, status=200, headers={"Content-Type": kind}, body=raw))
            with pytest.raises(Refused, match=said), opened(f"{proxy.address}/app", access):
                pass


DESCRIBED = {"mediaType": OCI["config"], "digest": "sha256:" + "1" * 64, "size": 10}
MANIFEST = {"schemaVersion": 2, "mediaType": OCI["manifest"], "config": DESCRIBED, "layers": []}
INDEX = {"schemaVersion": 2, "mediaType": OCI["index"], "manifests": []}


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[" * 100_000,
        b'{"schemaVersion": 2',
        dump({}),
        dump({**INDEX, "manifests": "all"}),
        dump({**INDEX, "manifests": [1]}),
        dump({**INDEX, "manifests": [{"digest": "md5:0", "size": 1}]}),
        dump({**INDEX, "layers": []}),
        dump({**MANIFEST, "manifests": []}),
        dump({**MANIFEST, "mediaType": OCI["index"]}),
        dump({**MANIFEST, "config": {**DESCRIBED, "size": -1}}),
        dump({**MANIFEST, "config": {**DESCRIBED, "size": 1 << 40}}),
        dump({**MANIFEST, "config": {**DESCRIBED, "digest": "../../../etc/passwd"}}),
        dump({**MANIFEST, "layers": [{**DESCRIBED, "size": True}]}),
        dump({**MANIFEST, "config": None}),
        dump(INDEX),
    ],
)
def test_a_hostile_document_is_refused_with_one_error(registry: Registry, access: Access, raw: bytes) -> None:
    with running_proxy(registry.address) as proxy:
        proxy.faults.append(Fault("/manifests/", times=0, status=200, headers={"Content-Type": "application/json"}, body=raw))
        with pytest.raises(Refused), opened(f"{proxy.address}/app", access, "linux/amd64"):
            pass
        assert not proxy.targets("/blobs/")


def test_indexes_in_indexes_are_not_followed_for_ever(registry: Registry, access: Access) -> None:
    artifact = {**MANIFEST, "config": {**DESCRIBED, "mediaType": "application/vnd.example.nothing"}}
    documents: dict[str, bytes] = {}

    def described(document: dict[str, object]) -> dict[str, object]:
        raw = dump(document)
        documents[sha256(raw)] = raw
        return {"mediaType": document["mediaType"], "digest": sha256(raw), "size": len(raw)}

    leaves = [[described({**artifact, "annotations": {"n": f"{row} {column}"}}) for column in range(16)] for row in range(16)]
    top = str(described({**INDEX, "manifests": [described({**INDEX, "manifests": row}) for row in leaves]})["digest"])
    with running_proxy(registry.address) as proxy:
        proxy.faults += [Fault(f"/manifests/{digest}", times=0, status=200, body=raw) for digest, raw in documents.items()]
        with (
            pytest.raises(SourceInvalidContent, match="more than 100 manifests and indexes"),
            opened(f"{proxy.address}/app@{top}", access, "linux/amd64"),
        ):
            pass
        assert len(proxy.asked) <= 102


def test_many_large_indexes_are_not_all_kept(registry: Registry, access: Access) -> None:
    pads = [dump({**INDEX, "annotations": {"n": str(number), "pad": "x" * (4_000_000)}}) for number in range(9)]
    described = [{"mediaType": INDEX["mediaType"], "digest": sha256(raw), "size": len(raw)} for raw in pads]
    top = dump({**INDEX, "manifests": described})
    with running_proxy(registry.address) as proxy:
        proxy.faults += [Fault(f"/manifests/{sha256(raw)}", times=0, status=200, body=raw) for raw in (top, *pads)]
        with (
            pytest.raises(SourceInvalidContent, match="or of more than 33554432 bytes together"),
            opened(f"{proxy.address}/app@{sha256(top)}", access, "linux/amd64"),
        ):
            pass


def test_a_layer_larger_than_any_layer_may_be_is_not_begun(registry: Registry, access: Access) -> None:
    push(registry.address, "wide", oci_files([APP], compression="none"))
    before = len(registry.requests())
    limits = Limits(layer_bytes=10_000)
    with pytest.raises(SourceInvalidContent, match="more than the 10000"), opened(f"{registry.address}/wide", access, limits=limits):
        pass
    assert len([line for line in registry.requests()[before:] if "/blobs/" in line]) == 1  # the config


def test_a_manifest_that_is_not_what_its_digest_says_is_refused_whatever_the_header_says(registry: Registry, access: Access) -> None:
    top = push(registry.address, "lied", oci_files([APP]))
    with running_proxy(registry.address) as proxy:
        proxy.faults.append(Fault("/manifests/", times=0, flip=-1 - 2, headers={"Docker-Content-Digest": top}))
        with pytest.raises(BlobCorrupt, match=f"instead of {top}"), opened(f"{proxy.address}/lied@{top}", access):
            pass
    assert access.cache is not None and list(access.cache.blobs()) == []


def test_an_image_with_more_metadata_than_allowed_is_refused(registry: Registry, access: Access) -> None:
    push(registry.address, "large", oci_files([APP]))
    with (
        pytest.raises(Refused, match="more than the 100 bytes"),
        opened(f"{registry.address}/large", access, limits=Limits(metadata_bytes=100)),
    ):
        pass


def test_an_artifact_is_no_image(registry: Registry, access: Access) -> None:
    files = oci_files([APP])
    digest = json.loads(files["index.json"])["manifests"][0]["digest"]  # type: ignore[arg-type]
    document = json.loads(files["blobs/" + digest.replace(":", "/")])  # type: ignore[arg-type]
    document["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json"
    raw = dump(document)
    files["blobs/" + sha256(raw).replace(":", "/")] = raw
    files["index.json"] = dump({"schemaVersion": 2, "manifests": [{"mediaType": OCI["manifest"], "digest": sha256(raw), "size": len(raw)}]})
    push(registry.address, "chart", files)
    with (
        pytest.raises(SourceInvalidContent, match="no image, only attestations and artifacts"),
        opened(f"{registry.address}/chart", access),
    ):
        pass


def test_skopeo_and_we_agree_about_the_digest_of_an_index(registry: Registry, access: Access) -> None:
    require("skopeo")
    push(registry.address, "agreed", oci_files([IndexSpec(PLATFORMS)]))
    done = subprocess.run(
        [
            "skopeo",
            "inspect",
            "--tls-verify=false",
            "--format",
            "{{.Digest}}",
            "--override-arch",
            "arm64",
            f"docker://{registry.address}/agreed",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    with opened(f"{registry.address}/agreed", access, "linux/arm64") as image:
        assert done.stdout.strip() in (image.manifest_digest, image.index_digest)
