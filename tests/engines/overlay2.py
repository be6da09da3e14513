"""What a real engine wrote: the layers of an overlay2 data-root. Read it before anything was run or saved from it."""

from __future__ import annotations

import gzip
from pathlib import Path

from engines.treerecords import Record, records_of_tree


def layer_directories(data_root: Path) -> dict[str, Path]:
    """chainID → directory of the layer's tree, as the layer database names it."""
    return {
        f"sha256:{record.name}": data_root / "overlay2" / (record / "cache-id").read_text() / "diff"
        for record in sorted((data_root / "image/overlay2/layerdb/sha256").glob("*"))
    }


def dump_overlay2(data_root: Path) -> dict[str, list[Record]]:
    """chainID → the layer's paths, for every layer of a data-root."""
    return {chain_id: records_of_tree(tree) for chain_id, tree in layer_directories(data_root).items()}


def layer_metadata(data_root: Path) -> dict[str, dict[str, str]]:
    """chainID → the files of its record in the layer database, except the cache-id, which is random; tar-split as text."""
    found: dict[str, dict[str, str]] = {}
    for record in sorted((data_root / "image/overlay2/layerdb/sha256").glob("*")):
        files = {one.name: one for one in record.iterdir()}
        facts = {name: files[name].read_text() for name in sorted(files.keys() - {"cache-id", "tar-split.json.gz"})}
        facts["tar-split.json"] = gzip.decompress(files["tar-split.json.gz"].read_bytes()).decode()
        found[f"sha256:{record.name}"] = facts
    return found
