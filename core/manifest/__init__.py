"""``shiplap.yaml``: YAML with places → schema → checks → frozen values.

``document`` reads YAML, ``schema`` holds it against schema.json, ``checks`` knows what a schema cannot say,
``reading`` puts them together and builds the values of ``model``.
"""

from shiplap.core.manifest.model import (
    DEFAULT_NAME,
    ArchiveSettings,
    ImageRequest,
    Manifest,
    Overrides,
    SquashfsSettings,
    VeritySettings,
)
from shiplap.core.manifest.problems import ManifestError, Problem
from shiplap.core.manifest.reading import ManifestUnreadable, defaults, load_manifest, parse_manifest, resolve, to_data
from shiplap.core.manifest.schema import json_schema
from shiplap.core.manifest.sizes import SizeInvalid, format_size, parse_size

__all__ = [
    "DEFAULT_NAME",
    "ArchiveSettings",
    "ImageRequest",
    "Manifest",
    "ManifestError",
    "ManifestUnreadable",
    "Overrides",
    "Problem",
    "SizeInvalid",
    "SquashfsSettings",
    "VeritySettings",
    "defaults",
    "format_size",
    "json_schema",
    "load_manifest",
    "parse_manifest",
    "parse_size",
    "resolve",
    "to_data",
]
