"""Where an image may come from besides its registry: mirrors of the manifest and of registries.conf, download mirrors, proxies."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from archives import ImageSpec, oci_files
from faultyproxy import Fault, running_proxy
from layertar import item, layer
from openedsources import layer_tars
from registryserver import Registry, free_port, make_authority, push, running_registry
from shiplap.core.blobs import BlobCorrupt
from shiplap.core.cache import Cache
from shiplap.core.limits import Limits
from shiplap.core.progress import SILENT
from shiplap.core.reference import parse_reference
from shiplap.core.registry.client import open_registry
from shiplap.core.registry.endpoints import RegistryBlocked, endpoints
from shiplap.core.registry.patience import Patience
from shiplap.core.registry.proxies import Proxy, ProxyUnusable, proxy_for
from shiplap.core.registry.registriesconf import RegistriesConfUnusable, conf_registry
from shiplap.core.registry.settings import RegistrySettings
from shiplap.core.sources import Access, open_images, parse_source

TAR = layer([item("file", data=b"content")])
FILES = oci_files([ImageSpec([TAR], ["app:1"])], compression="none")
LAYER = "sha256:" + hashlib.sha256(TAR).hexdigest()
HASTY = Patience(attempts=1, connect_seconds=2, silence_seconds=2)
PLAIN = RegistrySettings(tls_verify=False)


class Notes:
    """A progress that keeps what was noted."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def task(self, label: str, total_bytes: int | None = None) -> Any:
        return SILENT.task(label, total_bytes)

    def note(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        push(running.address, "team/app", FILES)
        push(running.address, "copies/team/app", FILES)
        yield running


def access_of(tmp_path: Path, registries: dict[str, RegistrySettings] | None = None, **more: Any) -> Access:
    environment = {"HOME": str(tmp_path), **more.pop("environment", {})}
    cache = Cache(tmp_path / "cache")
    return Access(cache=cache, registries=registries or {}, default_registry=PLAIN, environment=environment, **more)


def tars(name: str, access: Access) -> list[bytes]:
    with open_images(parse_source(f"docker://{name}"), platform=None, limits=Limits(), access=access) as images:
        return layer_tars(images[0])


def conf(tmp_path: Path, text: str) -> dict[str, str]:
    path = tmp_path / "registries.conf"
    path.write_text(text)
    return {"CONTAINERS_REGISTRIES_CONF": str(path)}


# --- mirrors of registries


def test_a_mirror_of_the_manifest_is_asked_first_and_the_registry_not_at_all(registry: Registry, tmp_path: Path) -> None:
    dead = f"127.0.0.1:{free_port()}"
    registries = {dead: RegistrySettings(mirrors=(f"{registry.address}/copies",))}
    before = len(registry.requests())
    assert tars(f"{dead}/team/app", access_of(tmp_path, registries)) == [TAR]
    assert all("/v2/copies/team/app/" in line for line in registry.requests()[before:])


def test_a_mirror_that_is_dead_wrong_or_has_not_got_it_is_noted_and_the_next_is_asked(registry: Registry, tmp_path: Path) -> None:
    dead, notes = f"127.0.0.1:{free_port()}", Notes()
    with running_proxy(registry.address) as wrong:
        wrong.faults.append(Fault("/blobs/", times=0, flip=3))
        registries = {registry.address: RegistrySettings(mirrors=(dead, f"{registry.address}/nothing", wrong.address))}
        access = access_of(tmp_path, registries, progress=notes)
        with open_registry(parse_reference(f"{registry.address}/team/app"), access, patience=HASTY) as client:
            received = client.manifest("latest", limit_bytes=1 << 20)
            client.blob(LAYER, len(TAR))
        assert received.digest == "sha256:" + hashlib.sha256(received.raw).hexdigest()
        assert len(wrong.targets("/blobs/")) == 1
    assert access.cache is not None and access.cache.has(LAYER, len(TAR))
    said = "\n".join(notes.said)
    assert "refused the connection" in said and "404" in said and "came instead of" in said


def test_wrong_bytes_of_the_registry_itself_are_no_note(registry: Registry, tmp_path: Path) -> None:
    with running_proxy(registry.address) as wrong:
        wrong.faults.append(Fault("/blobs/", times=0, flip=3))
        with open_registry(parse_reference(f"{wrong.address}/team/app"), access_of(tmp_path), patience=HASTY) as client:  # noqa: SIM117
            with pytest.raises(BlobCorrupt):
                client.blob(LAYER, len(TAR))


def test_registries_conf_names_mirrors_and_locations(registry: Registry, tmp_path: Path) -> None:
    text = f"""
        unqualified-search-registries = ["example.org"]
        [[registry]]
        prefix = "registry.example.org/public"
        location = "{registry.address}/team"
        insecure = true
        [[registry.mirror]]
        location = "{registry.address}/copies/team"
        insecure = true
        pull-from-mirror = "digest-only"
    """
    access = access_of(tmp_path, environment=conf(tmp_path, text))
    before = len(registry.requests())
    assert tars("registry.example.org/public/app", access) == [TAR]
    asked = [line.split("/manifests/")[0].split("/blobs/")[0] for line in registry.requests()[before:]]
    assert asked == ["GET /v2/team/app", "GET /v2/copies/team/app", "GET /v2/copies/team/app"]


def test_mirrors_of_the_manifest_stand_in_place_of_those_of_registries_conf(tmp_path: Path) -> None:
    environment = conf(tmp_path, '[[registry]]\nlocation = "a.org"\n[[registry.mirror]]\nlocation = "conf.org"\n')
    registries = {"a.org": RegistrySettings(mirrors=("own.org",))}
    for given, expected in (({}, ["conf.org/app", "a.org/app"]), (registries, ["own.org/app", "a.org/app"])):
        assert [one.name for one in endpoints(parse_reference("a.org/app"), given, PLAIN, environment)] == expected


def test_a_blocked_registry_is_refused(tmp_path: Path) -> None:
    environment = conf(tmp_path, '[[registry]]\nlocation = "registry.example.org"\nblocked = true\n')
    with pytest.raises(RegistryBlocked, match=r"registries\.conf blocks registry\.example\.org"):
        tars("registry.example.org/app", access_of(tmp_path, environment=environment))


CONF = """
[[registry]]
prefix = "*.example.org"
insecure = true
[[registry]]
location = "a.example.org"
[[registry]]
prefix = "a.example.org/team"
location = "b.example.org/other"
"""


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("a.example.org/team/app", "a.example.org/team"),
        ("a.example.org/teams/app", "a.example.org"),
        ("b.example.org/app", "*.example.org"),
        ("x.b.example.org:5000/app", "*.example.org"),
        ("example.org/app", None),
        ("a.example.com/app", None),
    ],
)
def test_the_longest_prefix_counts(tmp_path: Path, name: str, prefix: str | None) -> None:
    found = conf_registry(name, conf(tmp_path, CONF))
    assert (found and found.prefix) == prefix


@pytest.mark.parametrize(
    "text",
    [
        "[[registry]",
        "[[registry]]\nblocked = true\n",
        "[[registry]]\nlocation = 3\n",
        '[[registry]]\nlocation = "x.org"\n[[registry.mirror]]\n',
        '[[registry]]\nlocation = "x.org"\n[[registry.mirror]]\nlocation="y.org"\npull-from-mirror="never"\n',
        '[[registry]]\nlocation = "x.org"\ninsecure = "yes"\n',
        'registry = "x"\n',
    ],
)
def test_a_registries_conf_that_is_wrong_is_refused_by_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(RegistriesConfUnusable, match=r"registries\.conf"):
        conf_registry("x.org/app", conf(tmp_path, text))


def test_the_users_file_stands_for_the_systems_and_the_folders_add_to_it(tmp_path: Path) -> None:
    folder = tmp_path / ".config/containers"
    (folder / "registries.conf.d").mkdir(parents=True)

    def place() -> str:
        (found,) = endpoints(parse_reference("y.org/app"), {}, PLAIN, {"HOME": str(tmp_path)})
        return found.name

    (folder / "registries.conf").write_text('[[registry]]\nlocation = "x.org"\nprefix = "y.org"\n')
    assert place() == "x.org/app"
    (folder / "registries.conf.d/50-own.conf").write_text('[[registry]]\nlocation = "z.org"\nprefix = "y.org"\n')
    assert place() == "z.org/app"


def test_docker_hub_is_asked_where_it_answers_and_found_under_all_its_names() -> None:
    settings = {"index.docker.io": RegistrySettings(mirrors=("mirror.example.org",))}
    environment = {"CONTAINERS_REGISTRIES_CONF": "/dev/null", "HOME": "/nonexistent"}
    mirror, hub = endpoints(parse_reference("redis:7"), settings, RegistrySettings(), environment)
    assert (mirror.host, mirror.repository, mirror.is_mirror) == ("mirror.example.org", "library/redis", True)
    assert (hub.host, hub.repository, hub.name, hub.tls_verify) == (
        "registry-1.docker.io",
        "library/redis",
        "docker.io/library/redis",
        True,
    )


def test_what_the_manifest_says_of_a_registry_is_stronger_than_options_key_by_key(tmp_path: Path) -> None:
    registries = {"a.org": RegistrySettings(tls_verify=True), "b.org": RegistrySettings(authfile=Path("own"))}
    default = RegistrySettings(tls_verify=False, authfile=Path("general"))
    environment = {"HOME": str(tmp_path)}
    (a,) = endpoints(parse_reference("a.org/app"), registries, default, environment)
    (b,) = endpoints(parse_reference("b.org/app"), registries, default, environment)
    (c,) = endpoints(parse_reference("c.org/app"), registries, default, environment)
    assert [(one.tls_verify, one.authfile) for one in (a, b, c)] == [
        (True, Path("general")),
        (False, Path("own")),
        (False, Path("general")),
    ]


# --- download mirrors


def test_blobs_come_from_a_download_mirror_before_the_registry(registry: Registry, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / LAYER.replace(":", "-")).write_bytes(TAR)
    before = len(registry.requests())
    assert tars(f"{registry.address}/team/app", access_of(tmp_path, download_mirrors=(str(mirror),))) == [TAR]
    assert not [line for line in registry.requests()[before:] if LAYER in line]
    assert [line for line in registry.requests()[before:] if "/blobs/" in line]  # the config, which the mirror has not


# --- proxies


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "HTTPS_PROXY"])
def test_a_proxy_of_the_environment_is_used_and_gets_its_own_credentials(registry: Registry, tmp_path: Path, variable: str) -> None:
    # A host that only the proxy knows: this machine itself is never asked through one.
    authority = make_authority(tmp_path / "authority")
    keys = (authority.path("other.crt"), authority.path("other.key"))
    with running_proxy(registry.address, tls=keys) as sealed:
        with running_proxy(registry.address if variable == "HTTP_PROXY" else sealed.address) as proxy:
            (tmp_path / "certificates").mkdir()
            (tmp_path / "certificates/ca.crt").write_bytes(authority.certificate.read_bytes())
            settings = RegistrySettings(tls_verify=variable == "HTTPS_PROXY", cert_dir=tmp_path / "certificates")
            environment = {variable: f"http://user:pa%20ss@{proxy.address}"}
            access = access_of(tmp_path, {"other.example.org": settings}, environment=environment)
            assert tars("other.example.org/team/app", access) == [TAR]
        targets = [target for _, target, _ in proxy.asked]
        if variable == "HTTP_PROXY":
            assert targets[0] == "http://other.example.org/v2/team/app/manifests/latest"
        else:
            assert set(targets) == {"other.example.org:443"} and sealed.targets("/manifests/")
        assert {headers["Proxy-Authorization"] for _, _, headers in proxy.asked} == {"Basic dXNlcjpwYSBzcw=="}
        assert not any("Proxy-Authorization" in headers for _, _, headers in sealed.asked)


@pytest.mark.parametrize(
    ("environment", "target", "direct"),
    [
        ({"HTTPS_PROXY": "http://p:1"}, "https://a.org", False),
        ({"https_proxy": "p:1"}, "https://a.org", False),
        ({"HTTP_PROXY": "http://p:1"}, "https://a.org", True),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.org"}, "https://a.org", True),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.org"}, "https://b.a.org", True),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".a.org"}, "https://a.org", False),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "b.org, *.a.org"}, "https://b.a.org", True),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "ba.org"}, "https://a.org", False),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, "https://a.org", True),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "a.org:444"}, "https://a.org", False),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, "https://10.1.2.3", True),
        ({"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, "https://11.1.2.3", False),
        ({"HTTPS_PROXY": "http://p:1"}, "https://localhost", True),
        ({"HTTPS_PROXY": "http://p:1"}, "https://127.0.0.1", True),
        ({}, "https://a.org", True),
    ],
)
def test_no_proxy_is_read_as_go_reads_it(environment: dict[str, str], target: str, direct: bool) -> None:
    scheme, _, host = target.partition("://")
    found = proxy_for(scheme, host, 443, environment)
    assert found == (None if direct else Proxy("p", 1))


@pytest.mark.parametrize(
    "value", ["socks5://p:1", "https://u:secret@p:1", "http://u:secret@", "http://p:x", "http://u:secret@[::1", "http://u:secret\u2100@p:1"]
)
def test_a_proxy_that_cannot_be_used_is_refused_without_its_password(value: str) -> None:
    with pytest.raises(ProxyUnusable) as caught:
        proxy_for("https", "a.org", 443, {"HTTPS_PROXY": value})
    assert "secret" not in "".join(traceback.format_exception(caught.value))
