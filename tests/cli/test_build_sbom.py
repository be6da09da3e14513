"""The bills of materials of a build: what the distribution's own tools say of its packages, and the same bytes everywhere."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from archives import ImageSpec, docker_archive, oci_layout
from commandline import shiplap_command
from debianimages import layer
from images import file
from layertar import build
from requirement import missing
from storeimages import APP_IMAGE

BILLS = ("sbom.spdx.json", "sbom.cdx.json")
EPOCH = ("--source-date-epoch", "1700000000")
ALPINE = build(
    [
        file(
            "lib/apk/db/installed",
            b"P:musl\nV:1.2.4-r2\nA:x86_64\nL:MIT\no:musl\n\nP:ssl_client\nV:1\nA:x86_64\nL:GPL-2.0-only\no:busybox\n",
        ),
        file("etc/os-release", b"ID=alpine\nVERSION_ID=3.19.1\n"),
    ]
)
ALPINE_IMAGE = ImageSpec([ALPINE], tags=["alpine:3"])


def built(folder: Path, *words: str, manifest: dict[str, Any] | None = None, env: dict[str, str] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / "out"
    if manifest is not None:
        (folder / "shiplap.yaml").write_text(json.dumps({"version": 1} | manifest))
        words = (*words, "-f", str(folder / "shiplap.yaml"))
    done = shiplap_command("build", *words, "-o", str(out), *EPOCH, env=env)
    assert done.returncode == 0, done.stderr
    return out


def spdx(out: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((out / "sbom.spdx.json").read_bytes())
    return document


def urls(out: Path) -> list[str]:
    document = json.loads((out / "sbom.cdx.json").read_bytes())
    return sorted(one["purl"] for one in document["components"] if one["type"] == "library")


def test_a_real_debian_has_the_packages_that_dpkg_lists(tmp_path: Path) -> None:
    if shutil.which("dpkg-query") is None:
        pytest.skip("not a Debian")
    image = ImageSpec([layer(["var/lib/dpkg/status", "usr/lib/os-release", "usr/bin/env"])], tags=["debian:this"])
    out = built(tmp_path, f"docker-archive:{docker_archive(tmp_path / 'in.tar', [image])}")
    asked = "${db:Status-Status}\t${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\n"
    listed = subprocess.run(["dpkg-query", "--show", f"--showformat={asked}"], capture_output=True, text=True, check=True).stdout
    wanted = {tuple(line.split("\t")[1:]) for line in listed.splitlines() if line.startswith("installed\t")}
    found = set()
    for one in spdx(out)["packages"]:
        if one["SPDXID"].startswith("SPDXRef-Package-deb-"):
            name, version, url = one["name"], one["versionInfo"], one["externalRefs"][0]["referenceLocator"]
            source, source_version = one.get("sourceInfo", f"built from {name} {version}").split()[2:]
            found.add((name, version, url.partition("?arch=")[2].partition("&")[0], source, source_version))
    assert found == wanted and len(wanted) > 50
    release = dict(line.split("=", 1) for line in Path("/usr/lib/os-release").read_text().splitlines() if "=" in line)
    distro = f"distro={release['ID']}-{release.get('VERSION_ID', '').strip(chr(34))}"
    assert all(distro in url for url in urls(out))


def test_licences_come_from_the_manifest_and_from_the_image(tmp_path: Path) -> None:
    docker_archive(tmp_path / "in.tar", [ALPINE_IMAGE, APP_IMAGE])
    images = [
        {"ref": "app:1", "from": "docker-archive:in.tar:app:1", "license": "mit and LicenseRef-Acme"},
        {"ref": "alpine:3", "from": "docker-archive:in.tar:alpine:3"},
    ]
    out = built(tmp_path, manifest={"images": images, "name": "gateway"})
    licences = {one["name"]: one["licenseDeclared"] for one in spdx(out)["packages"] if "-Layer-" not in one["SPDXID"]}
    assert licences == {
        "gateway": "NOASSERTION", "app": "MIT AND LicenseRef-Acme", "alpine": "NOASSERTION", "musl": "MIT", "ssl_client": "GPL-2.0-only",
    }  # fmt: skip
    sources = {one["references"][0]: one.get("license") for one in json.loads((out / "record.json").read_bytes())["sources"]}
    assert sources == {"docker.io/library/app:1": "MIT AND LicenseRef-Acme", "docker.io/library/alpine:3": None}
    assert urls(out) == [
        "pkg:apk/alpine/musl@1.2.4-r2?arch=x86_64&distro=alpine-3.19.1",
        "pkg:apk/alpine/ssl_client@1?arch=x86_64&distro=alpine-3.19.1&upstream=busybox",
    ]
    refused = shiplap_command("build", "-f", str(tmp_path / "shiplap.yaml"), "--json")
    assert refused.returncode == 0
    images[0]["license"] = "Apache 2"
    (tmp_path / "shiplap.yaml").write_text(json.dumps({"version": 1, "images": images}))
    refused = shiplap_command("build", "-f", str(tmp_path / "shiplap.yaml"))
    assert refused.returncode == 2 and "images[0].license" in refused.stderr


def test_the_source_the_place_and_the_environment_change_no_byte(tmp_path: Path) -> None:
    images = [ALPINE_IMAGE, APP_IMAGE]
    first = built(tmp_path / "one", f"docker-archive:{docker_archive(tmp_path / 'in.tar', images)}")
    layout = oci_layout(tmp_path / "layout", images)
    names = [f"{name}=oci:{layout}:{name}" for name in ("app:1", "alpine:3")]
    environment = {"TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "7", "PYTHONUTF8": "0"}
    second = built(tmp_path / "elsewhere" / "two", *names, "-j", "1", env=environment)
    for name in (*BILLS, "store.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    sums = dict(reversed(line.split("  ")) for line in (first / "SHA256SUMS").read_text().splitlines())
    assert set(BILLS) <= set(sums)


def test_an_archive_and_every_kind_of_store_say_the_same_of_their_images(tmp_path: Path) -> None:
    source = f"docker-archive:{docker_archive(tmp_path / 'in.tar', [ALPINE_IMAGE])}"
    wanted = urls(built(tmp_path / "store", source))
    assert len(wanted) == 2
    for name, words in {
        "archive": ["--mode", "archive"],
        "podman": ["--engine", "podman"],
        "vfs": ["--driver", "vfs"],
        "tar": ["--output", "tar"],
    }.items():
        assert urls(built(tmp_path / name, source, *words)) == wanted, name


def test_without_bills_everything_else_is_the_same(tmp_path: Path) -> None:
    source = f"docker-archive:{docker_archive(tmp_path / 'in.tar', [APP_IMAGE])}"
    first, second = built(tmp_path / "with", source), built(tmp_path / "without", source, "--no-sbom")
    differing = {"SHA256SUMS", "record.json", *BILLS}
    assert {path.name for path in first.iterdir()} - {path.name for path in second.iterdir()} == set(BILLS)
    for path in second.iterdir():
        assert path.name in differing or path.read_bytes() == (first / path.name).read_bytes()
    again = built(tmp_path / "with", source, "--no-sbom")
    assert not any((again / name).exists() for name in BILLS), "those of an earlier build do not stay"


def test_what_cannot_be_read_is_told_and_the_build_goes_on(tmp_path: Path) -> None:
    broken = build([file("var/lib/dpkg/status", b"Package: a b\nStatus: install ok installed\n"), file("var/lib/rpm/Packages", b"\0" * 99)])
    source = f"docker-archive:{docker_archive(tmp_path / 'in.tar', [ImageSpec([broken], tags=['x:1'])])}"
    done = shiplap_command("build", source, "-o", str(tmp_path / "out"), *EPOCH)
    assert done.returncode == 0
    assert "x:1: /var/lib/dpkg/status: 1 record left out" in done.stderr
    assert "the rpm database /var/lib/rpm/Packages is not read" in done.stderr
    (image,) = [one for one in spdx(tmp_path / "out")["packages"] if one["SPDXID"].startswith("SPDXRef-Image-")]
    assert "Not complete: " in image["comment"]


VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
sys.exit(str(JsonStrictValidator(SchemaVersion.V1_5).validate_str(open(sys.argv[1]).read()) or "") or 0)
"""


def test_the_validators_of_both_formats_find_nothing(tmp_path: Path) -> None:
    """``spdx-tools`` and ``cyclonedx-python-lib[json-validation]`` in a virtual environment whose bin/ is in PATH."""
    found = shutil.which("pyspdxtools")
    if found is None:
        missing("sbom-validators", "pyspdxtools is not installed")
    assert found is not None
    images = [ImageSpec([layer(["var/lib/dpkg/status", "usr/lib/os-release"])], tags=["debian:this"])] if shutil.which("dpkg-query") else []
    out = built(tmp_path, f"docker-archive:{docker_archive(tmp_path / 'in.tar', [ALPINE_IMAGE, APP_IMAGE, *images])}")
    for argv in (
        [found, "--infile", out / "sbom.spdx.json"],
        [Path(found).with_name("python"), "-c", VALIDATE, out / "sbom.cdx.json"],
    ):
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env={})
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
