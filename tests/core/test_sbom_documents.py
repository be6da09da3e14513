"""The two documents: whole, valid, the same bytes for the same store, with nothing of an image believed."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from typing import Any

import pytest
from archiveimages import image
from images import file
from layertar import build
from shiplap.core.reference import parse_reference
from shiplap.core.sbom import cyclonedx, spdx
from shiplap.core.sbom.bill import Bill, bill_of
from shiplap.core.sbom.cyclonedx import cyclonedx_json
from shiplap.core.sbom.software import ImageContents, OperatingSystem, Software
from shiplap.core.sbom.spdx import spdx_json
from shiplap.core.store.model import StoredImage

DEBIAN = OperatingSystem("debian", "12", "Debian GNU/Linux 12 (bookworm)")
LIBC = Software("deb", "libc6", "2.36-9", "amd64", source="glibc", source_version="2.36-9")
MUSL = Software("apk", "musl", "1.2.4-r2", "x86_64", "MIT")
ODD = Software("npm", "@a/b", "1.0", licence='Free as in <beer> "x"')
OWN = Software("pypi", "own", "1", licence="LicenseRef-Acme")
BASE = build([file("etc/x")])
DIGEST = "sha256:" + "d" * 64
# The whole documents of BILL in one number each; who changes what they say changes these on purpose.
GOLDEN = {
    "spdx": "1e61f275a587bfee7900c48bbe18d49b278154de2a621e8e54779d133e7a1aa7",
    "cyclonedx": "e68602315b07a2e4e37ff15f4ac028e193311a898afcfba911d79d86f1d94f72",
}


def stored(name: str, *layers: bytes, licence: str | None = None) -> StoredImage:
    references = (parse_reference(name), parse_reference(f"{name.partition(':')[0]}@{DIGEST}"))
    return StoredImage(replace(image(layers), references=(name,)), references, license=licence)


def bill(*images: tuple[StoredImage, ImageContents], name: str = "gateway", epoch: int = 1700000000) -> Bill:
    return bill_of(name, b'{"format":1}\n', epoch, images)


FIRST = stored("app:1", BASE, build([file("srv/app")]), licence="MIT OR LicenseRef-Mine")
SECOND = stored("example.org/team/db:2", BASE)
BILL = bill(
    (FIRST, ImageContents(DEBIAN, (LIBC, ODD, OWN), ("the rpm database /x is not read",))), (SECOND, ImageContents(DEBIAN, (LIBC, MUSL)))
)


def test_the_documents_are_these_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (spdx, cyclonedx):
        monkeypatch.setattr(module, "VERSION", "1.2.3")
    made = {"spdx": spdx_json(BILL), "cyclonedx": cyclonedx_json(BILL)}
    assert {name: hashlib.sha256(data).hexdigest() for name, data in made.items()} == GOLDEN
    assert all(data.endswith(b"}\n") and b"\r" not in data for data in made.values())


def test_spdx_has_every_package_once_and_every_relation_leads_somewhere() -> None:
    document = json.loads(spdx_json(BILL))
    packages = {one["SPDXID"]: one for one in document["packages"]}
    assert len(packages) == len(document["packages"])
    assert all(re.fullmatch(r"SPDXRef-[A-Za-z0-9.-]+", one) for one in packages)
    for relation in document["relationships"]:
        assert relation["relatedSpdxElement"] in packages
        assert relation["spdxElementId"] in {*packages, "SPDXRef-DOCUMENT"}
    names = sorted(one["name"] for one in packages.values() if "-Package-" in one["SPDXID"])
    assert names == ["@a/b", "libc6", "musl", "own"]
    inside = [one for one in document["relationships"] if "-Package-deb-libc6" in one["relatedSpdxElement"]]
    assert len(inside) == 2, "one package, in two images"
    assert document["creationInfo"]["created"] == "2023-11-14T22:13:20Z"


def test_spdx_declares_licences_that_are_not_on_the_list() -> None:
    document = json.loads(spdx_json(BILL))
    licences = {one["name"]: one["licenseDeclared"] for one in document["packages"]}
    assert licences["musl"] == "MIT" and licences["libc6"] == "NOASSERTION" and licences["example.org/team/db"] == "NOASSERTION"
    assert licences["app"] == "MIT OR LicenseRef-Mine" and licences["own"] == "LicenseRef-Acme"
    texts = {one["licenseId"]: one["extractedText"] for one in document["hasExtractedLicensingInfos"]}
    assert set(texts) == {"LicenseRef-Mine", "LicenseRef-Acme", licences["@a/b"]}
    assert texts[licences["@a/b"]] == ODD.licence


def test_cyclonedx_has_every_component_once_and_every_dependency_leads_somewhere() -> None:
    document = json.loads(cyclonedx_json(BILL))
    references = [one["bom-ref"] for one in document["components"]] + [document["metadata"]["component"]["bom-ref"]]
    assert len(set(references)) == len(references)
    for dependency in document["dependencies"]:
        assert dependency["ref"] in references and set(dependency["dependsOn"]) <= set(references)
    components = {one["name"]: one for one in document["components"]}
    assert components["b"]["group"] == "@a" and components["b"]["licenses"] == [{"license": {"name": ODD.licence}}]
    assert components["musl"]["licenses"] == [{"expression": "MIT"}]
    assert components["debian"]["type"] == "operating-system"
    app = components["app"]
    assert app["purl"] == f"pkg:oci/app@{DIGEST}?arch=amd64&repository_url=docker.io/library/app"
    assert {"name": "shiplap:not-complete", "value": "the rpm database /x is not read"} in app["properties"]
    assert {one["aggregate"] for one in document["compositions"]} == {"incomplete", "unknown"}


def test_the_order_in_which_images_come_changes_nothing_and_every_fact_does() -> None:
    pairs = [(one.stored, one.contents) for one in BILL.images]
    for write, key in ((spdx_json, "documentNamespace"), (cyclonedx_json, "serialNumber")):
        first = write(BILL)
        assert write(bill(*pairs[::-1])) == first
        others = [
            write(bill(*pairs, name="other")),
            write(bill(*pairs, epoch=0)),
            write(bill(*pairs[:1])),
            write(bill_of("gateway", b"other store", 1700000000, pairs)),
            write(bill((replace(FIRST, license=None), pairs[0][1]), *pairs[1:])),
            write(bill(*((one, replace(found, software=())) for one, found in pairs))),
        ]
        assert len({first, *others}) == 7
        assert len({json.loads(one)[key] for one in (first, *others)}) == 7, "each document has an identifier of its own"


def test_packages_that_look_alike_stay_apart() -> None:
    alike = (
        Software("deb", "a b", "1"),
        Software("deb", "a-b", "1"),
        Software("deb", "a-b", "1", licence="MIT"),
        Software("deb", "a-b", "1", "all"),
    )
    made = bill((FIRST, ImageContents(None, alike)))
    assert len(made.packages) == 4
    assert len([one for one in json.loads(spdx_json(made))["packages"] if "-Package-" in one["SPDXID"]]) == 4


@pytest.mark.parametrize("text", ["\u202e", 'a"b', "\\", "</script>", "é", "x" * 500])
def test_names_of_an_image_cannot_leave_their_place_in_the_document(text: str) -> None:
    hostile = Software("npm", f"n{text}", f"v{text}", licence=text)
    made = bill((FIRST, ImageContents(OperatingSystem("x", text, text), (hostile,), (text,))))
    documents: list[Any] = [json.loads(spdx_json(made)), json.loads(cyclonedx_json(made))]
    (package,) = [one for one in documents[0]["packages"] if "-Package-" in one["SPDXID"]]
    assert (package["name"], package["versionInfo"]) == (hostile.name, hostile.version)
    url = package["externalRefs"][0]["referenceLocator"]
    assert re.fullmatch(r"pkg:npm/[A-Za-z0-9.%:_~-]+@[A-Za-z0-9.%:_~-]+", url)


def test_a_store_without_any_package_database_has_documents_as_well() -> None:
    empty = bill((SECOND, ImageContents()))
    assert len(json.loads(spdx_json(empty))["packages"]) == 3
    assert [one["type"] for one in json.loads(cyclonedx_json(empty))["components"]] == ["container", "file"]
