"""``sbom.spdx.json``: SPDX 2.3 (ISO/IEC 5962 and its 2.3 revision), JSON."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from shiplap.core.sbom.bill import Bill, BillImage, BillPackage, layer_identifier, system_identifier
from shiplap.core.sbom.expression import expression_or_none, own_licences
from shiplap.core.sbom.software import OperatingSystem
from shiplap.core.version import VERSION

Data = dict[str, Any]

NAME = "sbom.spdx.json"
_NOTHING = "NOASSERTION"
_STORE = "SPDXRef-Store"


def spdx_json(bill: Bill) -> bytes:
    """The document's bytes; the same for the same bill."""
    licences = _Licences()
    packages = [_store(bill), *(_image(one, licences) for one in bill.images), *(_system(one) for one in bill.systems)]
    packages += [*(_layer(one) for one in bill.layers), *(_package(one, licences) for one in bill.packages)]
    document: Data = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": bill.name,
        "documentNamespace": "",
        "creationInfo": {"created": bill.time, "creators": [f"Tool: shiplap-{VERSION}"], "licenseListVersion": "3.28"},
        "packages": packages,
        "relationships": [_relation("SPDXRef-DOCUMENT", "DESCRIBES", _STORE), *_relations(bill)],
    }
    if licences.extracted:
        document["hasExtractedLicensingInfos"] = [licences.extracted[key] for key in sorted(licences.extracted)]
    document["documentNamespace"] = f"https://spdx.org/spdxdocs/shiplap-{bill.name}-{bill.uuid(_bytes(document))}"
    return _bytes(document)


def _bytes(document: Data) -> bytes:
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def _common(identifier: str, name: str, purpose: str, licence: str = _NOTHING) -> Data:
    return {
        "SPDXID": f"SPDXRef-{identifier}",
        "name": name,
        "downloadLocation": _NOTHING,
        "filesAnalyzed": False,
        "licenseConcluded": _NOTHING,
        "licenseDeclared": licence,
        "copyrightText": _NOTHING,
        "primaryPackagePurpose": purpose,
    }


def _store(bill: Bill) -> Data:
    comment = "The container images in a firmware. The checksum is that of store.json, which names them by their digests."
    return _common("Store", bill.name, "CONTAINER") | {"checksums": [_sha256(bill.store_id)], "comment": comment}


def _image(image: BillImage, licences: _Licences) -> Data:
    licence = licences.declared(image.stored.license or "")
    data = _common(image.identifier, image.name, "CONTAINER", licence)
    if image.tag:
        data["versionInfo"] = image.tag
    data["checksums"] = [_sha256(image.stored.image.config_digest.partition(":")[2])]
    said = [f"Known as {', '.join(str(one) for one in image.stored.references)}; the checksum is that of its config."]
    data["comment"] = " ".join([*said, *(f"Not complete: {one}." for one in image.contents.remarks)])
    if image.urls:
        data["externalRefs"] = [_url(url) for url in image.urls]
    return data


def _system(system: OperatingSystem) -> Data:
    data = _common(system_identifier(system), system.identifier, "OPERATING-SYSTEM")
    data |= {"versionInfo": system.version} if system.version else {}
    return data | ({"summary": system.name} if system.name else {})


def _layer(diff_id: str) -> Data:
    comment = "A layer of an image; the checksum is that of its uncompressed tar."
    return _common(layer_identifier(diff_id), diff_id, "ARCHIVE") | {"checksums": [_sha256(diff_id.partition(":")[2])], "comment": comment}


def _package(package: BillPackage, licences: _Licences) -> Data:
    software = package.software
    data = _common(package.identifier, software.name, "LIBRARY", licences.declared(software.licence))
    if software.source:
        data["sourceInfo"] = f"built from {software.source} {software.source_version}"
    return data | {"versionInfo": software.version, "externalRefs": [_url(package.url)]}


def _relations(bill: Bill) -> list[Data]:
    relations = []
    for image in bill.images:
        inside = [layer_identifier(one) for one in image.layers]
        inside += [system_identifier(image.contents.system)] if image.contents.system else []
        inside += sorted(one.identifier for one in image.packages)
        relations.append(_relation(_STORE, "CONTAINS", f"SPDXRef-{image.identifier}"))
        relations += [_relation(f"SPDXRef-{image.identifier}", "CONTAINS", f"SPDXRef-{one}") for one in dict.fromkeys(inside)]
    return relations


def _relation(one: str, kind: str, other: str) -> Data:
    return {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}


def _sha256(digest_hex: str) -> Data:
    return {"algorithm": "SHA256", "checksumValue": digest_hex}


def _url(url: str) -> Data:
    return {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": url}


class _Licences:
    """Licences that are not on SPDX's list are declared once in the document."""

    def __init__(self) -> None:
        self.extracted: dict[str, Data] = {}

    def declared(self, text: str) -> str:
        """For ``licenseDeclared``."""
        if not text:
            return _NOTHING
        expression = expression_or_none(text)
        if expression is None:
            identifier = f"LicenseRef-{hashlib.sha256(text.encode()).hexdigest()[:32]}"
            self.extracted[identifier] = {"licenseId": identifier, "extractedText": text, "name": text}
            return identifier
        for own in own_licences(expression):
            self.extracted[own] = {"licenseId": own, "extractedText": "The text is not part of the image's metadata.", "name": own}
        return expression
