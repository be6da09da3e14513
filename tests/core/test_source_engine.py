"""``docker-daemon:`` and ``podman:`` against real engines, over sockets, TCP with TLS and contexts."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from archives import DOCKER, ImageSpec, Tree, docker_archive, docker_files, dump, oci_archive, oci_files, sha256, tar_items
from commandline import COMMAND, environment, folder_for_everybody, nobody_can_run_it, shiplap_command
from engines.certificates import make_certificates
from engines.dockercontexts import put_context
from engines.dockerd import Dockerd
from engines.installations import Installation, installations
from engines.podman import Podman
from engines.rootlesspodman import USER, rootless_podman
from engines.scriptedengine import VERSION, Answer, scripted_engine
from layertar import build, header, item, layer
from openedsources import layer_tars
from registryserver import free_port, push, running_registry
from shiplap.core.engine.client import EngineFailed, EngineUnreachable, SdkMissing
from shiplap.core.errors import ProgramMissing, ShiplapError
from shiplap.core.image import Image
from shiplap.core.limits import Limits
from shiplap.core.progress import Task
from shiplap.core.sources import Access, OfflineRefused, open_images, parse_source
from shiplap.core.sources.engine import ImageChanged
from shiplap.core.sources.selection import NotInSource
from smalldisk import with_small_disk

BASE = layer([item("bin", type="5"), item("bin/app", data=b"application" * 5000, mode=0o755)])
TOP = layer([item("etc", type="5"), item("etc/app.conf", data=b"verbose")])
APP = ImageSpec([BASE, TOP], ["app:1", "app:2", "registry.example:5000/acme/app:3"])
OTHER = ImageSpec([BASE], ["other:1"])
BIG_BYTES = 200 << 20
EPOCH = "1700000000"


@contextmanager
def opened(source: str, variables: Mapping[str, str], *, limits: Limits | None = None, access: Access | None = None) -> Iterator[Image]:
    given = access or Access(environment={"HOME": "/nonexistent", **variables})
    with open_images(parse_source(source), platform=None, limits=limits or Limits(), access=given) as images:
        (only,) = images
        yield only


def failure(source: str, variables: Mapping[str, str], *, limits: Limits | None = None, access: Access | None = None) -> ShiplapError:
    with pytest.raises(ShiplapError) as caught, opened(source, variables, limits=limits, access=access):
        pass
    return caught.value


def store_digest(source: str, variables: Mapping[str, str], out: Path) -> str:
    """sha256 of the data-root that `shiplap build` makes of one image named app:1."""
    done = shiplap_command(
        "build", f"app:1={source}", "--output", "tar", "-o", str(out), "--source-date-epoch", EPOCH, "--json",
        env={"HOME": str(out.parent), **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    digest: str = json.loads(done.stdout)["outputs"]["store.tar"]["sha256"]
    return digest


@dataclass(frozen=True)
class Running:
    """A dockerd that listens on a unix socket and, with TLS, on a port of the loopback."""

    engine: Dockerd
    folder: Path
    port: int
    certificates: Path
    archive: Path

    @property
    def variables(self) -> dict[str, str]:
        return {"DOCKER_HOST": f"unix://{self.folder}/docker.sock"}


def big_archive(path: Path) -> Path:
    """big:1, one layer with one file of BIG_BYTES zeros, without ever having it in memory."""
    first, layer_bytes = header("zeros", size=BIG_BYTES), 512 + BIG_BYTES + 1024
    hasher = hashlib.sha256(first)
    for _ in range((layer_bytes - 512) // 512):
        hasher.update(bytes(512))
    config = dump({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hasher.hexdigest()}"]}})
    rest: Tree = {
        "config.json": config,
        "manifest.json": dump([{"Config": "config.json", "RepoTags": ["big:1"], "Layers": ["layer.tar"]}]),
    }
    with path.open("wb") as file:
        file.write(header("layer.tar", size=layer_bytes) + first)
        file.seek(512 + layer_bytes)
        file.write(build(tar_items(rest)))
    return path


@pytest.fixture(scope="module")
def docker() -> Iterator[Running]:
    installations()[0].demand("docker")
    with folder_for_everybody() as folder:
        yield from running(folder)


def running(folder: Path) -> Iterator[Running]:
    certificates = make_certificates(folder / "certificates")
    port = free_port()
    options = [
        "--host", f"unix://{folder}/docker.sock", "--host", f"tcp://127.0.0.1:{port}", "--tlsverify",
        "--tlscacert", str(certificates / "ca.pem"), "--tlscert", str(certificates / "server-cert.pem"),
        "--tlskey", str(certificates / "server-key.pem"),
    ]  # fmt: skip
    with Dockerd(folder, options=options, volatile=True) as engine:
        archive = docker_archive(folder / "app.tar", [APP, OTHER])
        engine.docker("load", "-i", archive)
        big = big_archive(folder / "big.tar")
        engine.docker("load", "-i", big)
        big.unlink()
        yield Running(engine, folder, port, certificates, archive)


# --- what comes


def test_the_image_is_the_one_that_was_loaded(docker: Running) -> None:
    with opened("docker-daemon:app:1", docker.variables) as image:
        assert (image.config, image.config_digest) == (APP.config_bytes, APP.config_digest)
        assert layer_tars(image) == [BASE, TOP]
        assert image.source == "docker-daemon:app:1"
        # The engine knows neither, or makes them up for the archive: nothing proven.
        assert (image.manifest_digest, image.index_digest) == (None, None)


def test_the_store_is_the_one_from_the_archive(docker: Running, tmp_path: Path) -> None:
    wanted = store_digest(f"docker-archive:{docker.archive}:app:1", {}, tmp_path / "archive")
    assert store_digest("docker-daemon:app:1", docker.variables, tmp_path / "socket") == wanted


@pytest.mark.parametrize(
    ("name", "references"),
    [
        ("app:2", ("docker.io/library/app:2",)),
        ("docker.io/library/app:1", ("docker.io/library/app:1",)),
        ("registry.example:5000/acme/app:3", ("registry.example:5000/acme/app:3",)),
        (APP.config_digest, ()),
        (APP.config_digest[7:], ()),
        (APP.config_digest[7:19], ()),
        (f"app@{APP.config_digest}", ("docker.io/library/app:1", "docker.io/library/app:2")),
        (f"app:2@{APP.config_digest}", ("docker.io/library/app:2",)),
    ],
    ids=lambda value: value.replace(APP.config_digest[7:], "ID") if isinstance(value, str) else None,
)
def test_an_image_has_the_names_that_were_asked_for_and_no_others(docker: Running, name: str, references: tuple[str, ...]) -> None:
    with opened(f"docker-daemon:{name}", docker.variables) as image:
        assert image.config_digest == APP.config_digest
        assert image.references == references


@pytest.mark.parametrize(
    "name", [f"other@{APP.config_digest}", f"app:3@{APP.config_digest}", "app", "app:3", "0" * 64, f"sha256:{'0' * 64}"]
)
def test_an_image_that_is_not_there_is_not_found(docker: Running, name: str) -> None:
    assert isinstance(failure(f"docker-daemon:{name}", docker.variables), NotInSource)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("aap:1", "did you mean app:1 or app:2?"),
        ("acme/app:3", "did you mean app:1 or app:2 or registry.example:5000/acme/app:3?"),
        ("zzzzzzzz:1", "it has app:1, app:2, big:1, other:1, registry.example:5000/acme/app:3"),
    ],
)
def test_names_that_are_close_are_suggested(docker: Running, name: str, hint: str) -> None:
    error = failure(f"docker-daemon:{name}", docker.variables)
    assert f"has no image {name}" in error.message
    assert error.hint == hint


def test_a_built_image_keeps_its_config(docker: Running, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text('FROM app:1\nCOPY Dockerfile /Dockerfile\nCMD ["/x"]\n')
    docker.engine.docker("build", "--quiet", "--tag", "built:1", str(tmp_path))
    with opened("docker-daemon:built:1", docker.variables) as image:
        assert image.config_digest == docker.engine.image_id("built:1")
        assert len(layer_tars(image)) == 3
    docker.engine.docker("rmi", "built:1")


def test_a_pulled_image_is_found_by_the_registrys_digest_which_proves_nothing(docker: Running, tmp_path: Path) -> None:
    pulled = ImageSpec([BASE, TOP, BASE])
    with running_registry(tmp_path) as registry:
        digest = push(registry.address, "acme/app", oci_files([pulled], media=DOCKER), None)
        name = f"{registry.address}/acme/app"
        docker.engine.docker("pull", "--quiet", name)
    for asked in (name, f"{name}@{digest}", f"{name}:latest@{digest}"):
        with opened(f"docker-daemon:{asked}", docker.variables) as image:
            assert image.config_digest == pulled.config_digest
            assert layer_tars(image) == [BASE, TOP, BASE]
            assert image.references == (f"{name}:latest",)
            assert image.manifest_digest is None
    docker.engine.docker("rmi", name)


# --- how the engine is reached


def test_over_tcp_with_tls_and_a_client_certificate(docker: Running, tmp_path: Path) -> None:
    variables = {"DOCKER_HOST": f"tcp://127.0.0.1:{docker.port}", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(docker.certificates)}
    wanted = store_digest(f"docker-archive:{docker.archive}:app:1", {}, tmp_path / "archive")
    assert store_digest("docker-daemon:app:1", variables, tmp_path / "tls") == wanted
    # Variables of the HTTP library are stronger than certificates there; not here.
    assert store_digest("docker-daemon:app:1", {**variables, "REQUESTS_CA_BUNDLE": "/etc/passwd"}, tmp_path / "odd") == wanted


def test_a_context_with_its_certificates(docker: Running, tmp_path: Path) -> None:
    put_context(tmp_path, "board", f"tcp://127.0.0.1:{docker.port}", material=("ca.pem", "cert.pem", "key.pem"))
    for path in (tmp_path / "contexts/tls").glob("*/docker/*.pem"):
        path.write_bytes((docker.certificates / path.name).read_bytes())
    with opened("docker-daemon:app:1", {"DOCKER_CONFIG": str(tmp_path), "DOCKER_CONTEXT": "board"}) as image:
        assert image.config_digest == APP.config_digest
    (tmp_path / "config.json").write_text('{"currentContext": "board"}')
    with opened("docker-daemon:app:1", {"DOCKER_CONFIG": str(tmp_path)}) as image:
        assert image.config_digest == APP.config_digest


def test_an_engine_that_nobody_vouches_for_is_not_trusted(docker: Running, tmp_path: Path) -> None:
    strangers = make_certificates(tmp_path / "strangers")
    variables = {"DOCKER_HOST": f"tcp://127.0.0.1:{docker.port}", "DOCKER_TLS_VERIFY": "1"}
    error = failure("docker-daemon:app:1", {**variables, "DOCKER_CERT_PATH": str(strangers)})
    assert isinstance(error, EngineUnreachable)
    assert "no trust could be established (TLS)" in error.message and "certificate verify failed" in error.message
    # The certificate is for 127.0.0.1 and for no other name of the same machine.
    named = {"DOCKER_HOST": f"tcp://127.1:{docker.port}", "DOCKER_CERT_PATH": str(docker.certificates)}
    other = failure("docker-daemon:app:1", {**variables, **named})
    assert isinstance(other, EngineUnreachable) and "TLS" in other.message and "127.1" in other.message


def test_an_engine_that_wants_a_client_certificate_gets_no_plain_http(docker: Running) -> None:
    error = failure("docker-daemon:app:1", {"DOCKER_HOST": f"tcp://127.0.0.1:{docker.port}"})
    assert "HTTP request to an HTTPS server" in error.message


def test_an_engine_that_does_not_run_is_said_not_to_run(tmp_path: Path) -> None:
    for host, why in [(f"unix://{tmp_path}/no.sock", "No such file"), (f"tcp://127.0.0.1:{free_port()}", "Connection refused")]:
        error = failure("docker-daemon:app:1", {"DOCKER_HOST": host})
        assert isinstance(error, EngineUnreachable)
        assert f"Docker at {host} (DOCKER_HOST) is not running: {why}" in error.message
        assert "systemctl start docker" in str(error.hint)
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(f"{tmp_path}/stale.sock")
    assert "is not running: Connection refused" in failure("docker-daemon:app:1", {"DOCKER_HOST": f"unix://{tmp_path}/stale.sock"}).message


def test_without_permission_the_hint_names_the_group(docker: Running) -> None:
    if not nobody_can_run_it():
        pytest.skip("nobody cannot run the command line here")
    (docker.folder / "docker.sock").chmod(0o600)
    (docker.folder / "out").mkdir(mode=0o700)
    os.chown(docker.folder / "out", 65534, 65534)
    done = subprocess.run(
        [*COMMAND, "build", "docker-daemon:app:1", "-o", str(docker.folder / "out")],
        env=environment({**docker.variables, "HOME": str(docker.folder / "out")}),
        user=65534, group=65534, extra_groups=[], cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "you may not talk to Docker at" in done.stderr and "group docker" in done.stderr


def test_offline_asks_no_engine(tmp_path: Path) -> None:
    with scripted_engine(tmp_path / "s", {"/version": Answer(VERSION)}) as asked:
        variables = {"DOCKER_HOST": f"unix://{tmp_path}/s", "CONTAINER_HOST": f"unix://{tmp_path}/s"}
        for source in ("docker-daemon:app:1", "podman:app:1"):
            assert isinstance(failure(source, {}, access=Access(offline=True, environment=variables)), OfflineRefused)
        assert asked == []


def test_without_the_sdk_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    error = failure("docker-daemon:app:1", {})
    assert isinstance(error, SdkMissing) and isinstance(error, ProgramMissing)
    assert "pip install 'shiplap[docker]'" in str(error.hint) and "docker save -o" in str(error.hint)
    assert "podman save -o" in str(failure("podman:app:1", {}).hint)


def test_the_sdk_is_not_imported_for_other_sources(tmp_path: Path) -> None:
    archive = docker_archive(tmp_path / "a.tar", [OTHER])
    program = (
        "import sys; from shiplap.core.sources import open_images, parse_source; from shiplap.core.limits import Limits\n"
        f"with open_images(parse_source('docker-archive:{archive}'), platform=None, limits=Limits()): pass\n"
        "assert not {'docker', 'requests', 'urllib3'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], env=environment(), check=True)


# --- large images and broken transfers


def test_an_image_is_never_in_memory(docker: Running) -> None:
    program = (
        "from shiplap.core.sources import open_images, parse_source; from shiplap.core.limits import Limits\n"
        "with open_images(parse_source('docker-daemon:big:1'), platform=None, limits=Limits()) as images:\n"
        "    print(sum(len(piece) for piece in images[0].layers[0].blob.chunks()))\n"
        # Not getrusage: that one begins with the memory of the process that started this one.
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment(docker.variables), check=True, capture_output=True, text=True)
    layer_bytes, peak_kibibytes = map(int, done.stdout.split())
    assert layer_bytes > BIG_BYTES
    assert peak_kibibytes << 10 < BIG_BYTES // 2


class Noted:
    """Progress that remembers what it is told, and does something after the first piece."""

    def __init__(self, then: object = None) -> None:
        self.tasks: list[tuple[str, int | None]] = []
        self.done_bytes = 0
        self._then = then

    @contextmanager
    def task(self, label: str, total_bytes: int | None = None) -> Iterator[Task]:
        self.tasks.append((label, total_bytes))
        yield self

    def note(self, message: str) -> None:
        raise AssertionError(message)

    def advance(self, amount_bytes: int) -> None:
        self.done_bytes += amount_bytes
        if callable(self._then):
            then, self._then = self._then, None
            then()


def test_the_transfer_shows_its_progress(docker: Running) -> None:
    noted = Noted()
    with opened("docker-daemon:app:1", {}, access=Access(progress=noted, environment=docker.variables)):
        pass
    ((label, total_bytes),) = noted.tasks
    assert label == "export docker-daemon:app:1"
    assert total_bytes is not None and total_bytes > 55_000
    assert noted.done_bytes > len(BASE) + len(TOP)


def test_an_image_over_the_limit_is_refused_before_it_fills_the_disk(docker: Running) -> None:
    error = failure("docker-daemon:big:1", docker.variables, limits=Limits(layer_bytes=1 << 20))
    assert "is the limit" in error.message and "layer-bytes" in str(error.hint)


def test_a_full_disk_is_said_to_be_full(docker: Running, tmp_path: Path) -> None:
    small = tmp_path / "small"
    words = [*COMMAND, "build", "docker-daemon:big:1", "-o", str(tmp_path / "out")]
    done = with_small_disk(small, "150m", words, environment({**docker.variables, "TMPDIR": str(small)}))
    assert done.returncode == 1
    assert "docker-daemon:big:1: no room" in done.stderr and "TMPDIR" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_engine_that_dies_in_the_middle_is_said_to_have_broken_off(tmp_path: Path) -> None:
    installations()[0].demand("docker")
    tmp_path.chmod(0o755)
    with Dockerd(tmp_path, options=["--host", f"unix://{tmp_path}/docker.sock"], volatile=True) as engine:
        layer_of_noise = build([item("noise", data=os.urandom(40 << 20))])
        engine.docker("load", "-i", docker_archive(tmp_path / "a.tar", [ImageSpec([layer_of_noise], ["noise:1"])]))

        noted = Noted(engine.kill)
        error = failure(
            "docker-daemon:noise:1", {}, access=Access(progress=noted, environment={"DOCKER_HOST": f"unix://{tmp_path}/docker.sock"})
        )
    assert isinstance(error, EngineFailed)
    assert "broke off while it sent the image" in error.message
    assert noted.done_bytes < 40 << 20


# --- answers that no engine gives on demand


def inspected(digest: str = APP.config_digest) -> Answer:
    return Answer({"Id": digest, "RepoTags": ["app:1"], "RepoDigests": [], "RootFS": {"Layers": APP.diff_ids}, "Size": 5})


def archive_bytes(spec: ImageSpec = APP) -> bytes:
    return build(tar_items(docker_files([spec])))


def scripted_failure(folder: Path, answers: Mapping[str, Answer]) -> ShiplapError:
    with scripted_engine(folder / "s", {"/version": Answer(VERSION), **answers}):
        return failure("docker-daemon:app:1", {"DOCKER_HOST": f"unix://{folder}/s"})


def test_the_script_is_an_engine_when_it_wants_to_be(tmp_path: Path) -> None:
    answers = {"/version": Answer(VERSION), "/images/app:1/json": inspected(), f"/images/{APP.config_digest}/get": Answer(archive_bytes())}
    with scripted_engine(tmp_path / "s", answers) as asked, opened("docker-daemon:app:1", {"DOCKER_HOST": f"unix://{tmp_path}/s"}) as image:
        assert layer_tars(image) == [BASE, TOP]
    # The version is the engine's own: new engines refuse old ones.
    assert asked == ["/version", "/v1.41/images/app:1/json", f"/v1.41/images/{APP.config_digest}/get"]


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ({**VERSION, "ApiVersion": "1.20"}, "speaks version 1.20 of Docker's API, at least 1.24 is needed"),
        ({}, "no container engine"),
        ([], "no container engine"),
        ({"ApiVersion": "x.y"}, "no container engine"),
    ],
)
def test_an_api_that_is_too_old_or_none_at_all(tmp_path: Path, version: object, said: str) -> None:
    error = scripted_failure(tmp_path, {"/version": Answer(version)})
    assert isinstance(error, EngineFailed) and said in error.message


def test_what_is_no_engine_or_answers_nonsense_is_one_clear_error(tmp_path: Path) -> None:
    for number, (answers, said) in enumerate(
        [
            ({"/version": Answer({"message": "not found"}, 404)}, "answers: not found"),
            ({"/version": Answer("not found", 404)}, "cannot be asked"),
            ({"/version": Answer(b"<html>")}, "cannot be asked"),
            ({"/images/app:1/json": Answer([])}, "is no object"),
            ({"/images/app:1/json": Answer({"Id": "sha256:../../x"})}, "is no image ID"),
            ({"/images/app:1/json": Answer({"Id": 5})}, "'Id'"),
            ({"/images/json?only_ids=0&all=0": Answer({})}, "is no array"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert said in scripted_failure(folder, answers).message


def test_another_image_than_announced_is_refused_with_what_differs(tmp_path: Path) -> None:
    converted = ImageSpec(APP.layers, config={"history": None})
    error = scripted_failure(
        tmp_path, {"/images/app:1/json": inspected(), f"/images/{APP.config_digest}/get": Answer(archive_bytes(converted))}
    )
    assert isinstance(error, ImageChanged)
    assert f"the image has config digest {converted.config_digest}, expected is {APP.config_digest}" in error.message


@pytest.mark.parametrize("announced", ["more", "chunks"])
def test_half_an_image_is_no_image(tmp_path: Path, announced: str) -> None:
    whole = archive_bytes()
    half = Answer(whole[: len(whole) // 2], announced_bytes=len(whole) if announced == "more" else None)
    error = scripted_failure(tmp_path, {"/images/app:1/json": inspected(), f"/images/{APP.config_digest}/get": half})
    assert ("broke off" in error.message) == (announced == "more")
    assert error.message.startswith(("Docker at", "docker-daemon:app:1"))


def test_an_error_that_docker_puts_into_the_stream_is_found(tmp_path: Path) -> None:
    late = archive_bytes()[:5120] + b'{"errorDetail":{"message":"no space left on device"},"error":"no space left on device"}\r\n'
    error = scripted_failure(tmp_path, {"/images/app:1/json": inspected(), f"/images/{APP.config_digest}/get": Answer(late)})
    assert isinstance(error, EngineFailed) and "no space left on device" in error.message


def test_an_error_instead_of_the_image_is_passed_on(tmp_path: Path) -> None:
    answers = {"/images/app:1/json": inspected(), f"/images/{APP.config_digest}/get": Answer({"message": "layer does not exist"}, 500)}
    assert "layer does not exist" in scripted_failure(tmp_path, answers).message
    assert "boom" in scripted_failure(tmp_path / "..", {"/images/app:1/json": Answer({"message": "boom"}, 500)}).message


# --- Podman


@dataclass(frozen=True)
class Service:
    """A podman with its service on a socket."""

    engine: Podman
    folder: Path

    @property
    def variables(self) -> dict[str, str]:
        return {"CONTAINER_HOST": f"unix://{self.folder}/podman.sock"}


@pytest.fixture(scope="module")
def podman() -> Iterator[Service]:
    installations()[0].demand("podman")
    with folder_for_everybody() as folder, Podman(folder) as engine:
        engine.podman("load", "--input", docker_archive(folder / "app.tar", [APP, OTHER]))
        engine.podman("load", "--input", oci_archive(folder / "oci.tar", [ImageSpec([BASE, TOP, TOP], ["registry.example/oci:1"])]))
        with engine.service(folder / "podman.sock"):
            yield Service(engine, folder)


def test_podman_gives_the_same_store_as_the_archive(podman: Service, tmp_path: Path) -> None:
    wanted = store_digest(f"docker-archive:{podman.folder / 'app.tar'}:app:1", {}, tmp_path / "archive")
    assert store_digest("podman:app:1", podman.variables, tmp_path / "socket") == wanted
    # Docker's transport over the same socket.
    assert store_digest("docker-daemon:app:1", {"DOCKER_HOST": podman.variables["CONTAINER_HOST"]}, tmp_path / "docker") == wanted


@pytest.mark.parametrize(
    ("name", "references"),
    [
        ("app:1", ("localhost/app:1",)),
        ("localhost/app:2", ("localhost/app:2",)),
        (APP.config_digest, ()),
        (f"app@{APP.config_digest}", ("localhost/app:1", "localhost/app:2")),
    ],
    ids=lambda value: value.replace(APP.config_digest[7:], "ID") if isinstance(value, str) else None,
)
def test_an_image_has_the_names_that_podman_found_it_by(podman: Service, name: str, references: tuple[str, ...]) -> None:
    with opened(f"podman:{name}", podman.variables) as image:
        assert image.config_digest == APP.config_digest
        assert image.references == references


def test_podman_keeps_the_config_of_oci_images_and_of_those_it_builds(podman: Service, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text('FROM localhost/app:1\nCOPY Dockerfile /Dockerfile\nCMD ["/x"]\n')
    podman.engine.podman("build", "--quiet", "--isolation=chroot", "--tag", "built:1", str(tmp_path))
    for name in ("registry.example/oci:1", "localhost/built:1"):
        known = podman.engine.podman("image", "inspect", "--format", "{{.Id}}", name).stdout.decode().strip()
        with opened(f"podman:{name}", podman.variables) as image:
            assert image.config_digest == f"sha256:{known}" == sha256(image.config)
            assert len(layer_tars(image)) == 3


def test_podman_says_what_it_has_not(podman: Service) -> None:
    error = failure("podman:registry.exmple/oci:1", podman.variables)
    assert isinstance(error, NotInSource)
    assert str(error.hint).startswith("did you mean registry.example/oci:1")


def test_a_podman_that_does_not_listen_gets_the_command_to_start_it(tmp_path: Path) -> None:
    error = failure("podman:app", {"CONTAINER_HOST": f"unix://{tmp_path}/no.sock"})
    assert isinstance(error, EngineUnreachable)
    assert f"podman system service --time=0 unix://{tmp_path}/no.sock" in str(error.hint)


def test_a_user_finds_the_service_of_his_own() -> None:
    """Podman without root, shiplap without root, and nothing said but XDG_RUNTIME_DIR."""
    installations()[0].demand("podman")
    if not nobody_can_run_it():
        pytest.skip("nobody cannot run the command line here")
    with folder_for_everybody() as folder:
        archive = docker_archive(folder / "app.tar", [APP])
        archive.chmod(0o644)
        with rootless_podman(folder, archive) as variables:
            done = subprocess.run(
                [*COMMAND, "build", "podman:app:1", "-o", f"{variables['HOME']}/out"],
                env=environment({**variables, "XDG_CACHE_HOME": variables["HOME"]}),
                user=USER, group=USER, extra_groups=[], cwd="/", capture_output=True, text=True, check=False,
            )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"localhost/app:1  {APP.config_digest}" in done.stdout


# --- newer engines


@pytest.mark.parametrize("installation", installations()[1:], ids=lambda one: one.name)
def test_newer_podmans_keep_the_config(installation: Installation, tmp_path: Path) -> None:
    root = installation.demand("podman")
    with Podman(tmp_path, base=root) as engine:
        engine.podman("load", "--input", docker_archive(tmp_path / "app.tar", [APP]))
        with (
            engine.service(tmp_path / "podman.sock"),
            opened("podman:app:1", {"CONTAINER_HOST": f"unix://{tmp_path}/podman.sock"}) as image,
        ):
            assert image.config_digest == APP.config_digest
            assert layer_tars(image) == [BASE, TOP]
            assert image.references == ("localhost/app:1",)


@pytest.mark.parametrize("containerd_store", [False, True], ids=["overlay2", "containerd store"])
@pytest.mark.parametrize("installation", installations()[1:], ids=lambda one: one.name)
def test_newer_dockers_give_the_image_from_either_store(installation: Installation, containerd_store: bool, tmp_path: Path) -> None:
    root = installation.demand("docker")
    settings = tmp_path / "daemon.json"
    settings.write_text(json.dumps({"features": {"containerd-snapshotter": containerd_store}}))
    options = ["--config-file", str(settings), "--host", f"unix://{tmp_path}/docker.sock"]
    with Dockerd(tmp_path, base=root, options=options, volatile=True) as engine:
        engine.docker("load", "-i", docker_archive(tmp_path / "app.tar", [APP]))
        with opened("docker-daemon:app:1", {"DOCKER_HOST": f"unix://{tmp_path}/docker.sock"}) as image:
            assert image.config_digest == APP.config_digest
            assert layer_tars(image) == [BASE, TOP]
            assert image.references == ("docker.io/library/app:1",)
            # The containerd store's ID is a manifest's digest, and the archive has that manifest.
            assert (engine.image_id("app:1") in (image.manifest_digest, image.index_digest)) is containerd_store
