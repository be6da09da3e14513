"""``sbom.cdx.json``: CycloneDX 1.5, JSON."""

from __future__ import annotations

import json
from typing import Any

from shiplap.core.sbom.bill import Bill, BillImage, BillPackage, layer_identifier, system_identifier
from shiplap.core.sbom.expression import expression_or_none
from shiplap.core.sbom.software import OperatingSystem
from shiplap.core.version import VERSION

Data = dict[str, Any]

NAME = "sbom.cdx.json"
_STORE = "Store"


def cyclonedx_json(bill: Bill) -> bytes:
    """The document's bytes; the same for the same bill."""
    components = [*(_image(one) for one in bill.images), *(_system(one) for one in bill.systems)]
    components += [*(_layer(one) for one in bill.layers), *(_package(one) for one in bill.packages)]
    store = {"type": "container", "bom-ref": _STORE, "name": bill.name, "hashes": [_sha256(bill.store_id)]}
    document: Data = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": "",
        "version": 1,
        "metadata": {
            "timestamp": bill.time,
            "tools": {"components": [{"type": "application", "name": "shiplap", "version": VERSION}]},
            "component": store,
        },
        "components": components,
        "dependencies": [{"ref": _STORE, "dependsOn": [one.identifier for one in bill.images]}, *(_inside(one) for one in bill.images)],
        "compositions": [_complete(one) for one in bill.images],
    }
    document["serialNumber"] = f"urn:uuid:{bill.uuid(_bytes(document))}"
    return _bytes(document)


def _bytes(document: Data) -> bytes:
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def _image(image: BillImage) -> Data:
    data: Data = {"type": "container", "bom-ref": image.identifier, "name": image.name}
    if image.tag:
        data["version"] = image.tag
    data["hashes"] = [_sha256(image.stored.image.config_digest.partition(":")[2])]
    data |= _licences(image.stored.license or "")
    if image.urls:
        data["purl"] = image.urls[0]
    properties = [("shiplap:reference", str(one)) for one in image.stored.references]
    properties += [
        ("shiplap:platform", str(image.stored.image.platform)),
        *(("shiplap:not-complete", one) for one in image.contents.remarks),
    ]
    return data | {"properties": [{"name": name, "value": value} for name, value in properties]}


def _system(system: OperatingSystem) -> Data:
    data = {"type": "operating-system", "bom-ref": system_identifier(system), "name": system.identifier}
    data |= {"version": system.version} if system.version else {}
    return data | ({"description": system.name} if system.name else {})


def _layer(diff_id: str) -> Data:
    hashes = [_sha256(diff_id.partition(":")[2])]
    return {"type": "file", "bom-ref": layer_identifier(diff_id), "name": diff_id, "hashes": hashes}


def _package(package: BillPackage) -> Data:
    software = package.software
    data: Data = {"type": "library", "bom-ref": package.identifier}
    if software.kind == "npm" and software.name.startswith("@"):
        data["group"], _, data["name"] = software.name.partition("/")
    else:
        data["name"] = software.name
    return data | {"version": software.version} | _licences(software.licence) | {"purl": package.url}


def _inside(image: BillImage) -> Data:
    inside = [layer_identifier(one) for one in image.layers]
    inside += [system_identifier(image.contents.system)] if image.contents.system else []
    inside += sorted(one.identifier for one in image.packages)
    return {"ref": image.identifier, "dependsOn": list(dict.fromkeys(inside))}


def _complete(image: BillImage) -> Data:
    """Whether the packages are all that there is: unknown at best, since programs may bring others inside of them."""
    return {"aggregate": "incomplete" if image.contents.remarks else "unknown", "assemblies": [image.identifier]}


def _licences(text: str) -> Data:
    if not text:
        return {}
    expression = expression_or_none(text)
    return {"licenses": [{"license": {"name": text}} if expression is None else {"expression": expression}]}


def _sha256(digest_hex: str) -> Data:
    return {"alg": "SHA-256", "content": digest_hex}
