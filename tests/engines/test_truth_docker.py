"""Our layer rules against the real engine: what `docker load` leaves on disk, path by path, and what it refuses."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import images
import pytest
from archives import ImageSpec, docker_archive, sha256
from engines.dockerd import Dockerd
from engines.installations import Installation
from engines.overlay2 import dump_overlay2, layer_metadata
from engines.treerecords import Record, differences, records_of_entries
from shiplap.core.entries import FileSlice
from shiplap.core.errors import Refused
from shiplap.core.image import chain_ids
from shiplap.core.layer.tree import LayerTree
from shiplap.core.layer.unpack import unpack_layer
from shiplap.core.limits import MAX_LAYERS

EPOCH = 765432101  # no case uses it
LAYERS_OF_AN_IMAGE = 60


@dataclass
class Truth:
    """What one engine did with every case."""

    major: int
    started_epoch: int
    trees: dict[str, list[Record]] = field(default_factory=dict)
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    chains: dict[str, str] = field(default_factory=dict)
    refusals: dict[str, str | None] = field(default_factory=dict)
    """What the engine said, by case or by number of layers; None: it loaded."""


@pytest.fixture(scope="module")
def truth(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Truth]:
    """One engine start: every case loaded, refusals noted, then the data-root read."""
    root = installation.demand("docker")
    workdir = tmp_path_factory.mktemp("truth")
    with Dockerd(workdir, base=root) as engine:
        found = Truth(int(engine.version.split(".")[0]), int(time.time()) - 1)
        same = [case for case in images.SAME if case.verdict(found.major, "accepted") not in ("refused", "hangs")]
        for start in range(0, len(same), LAYERS_OF_AN_IMAGE):
            some = same[start : start + LAYERS_OF_AN_IMAGE]
            spec = ImageSpec([images.BASE, *(case.layer for case in some)], tags=[f"same:{start}"])
            engine.docker("load", "-i", docker_archive(workdir / "same.tar", [spec]))
            found.chains.update(zip((case.name for case in some), chain_ids(tuple(spec.diff_ids))[1:], strict=True))
        alone = {
            case.name: [images.BASE, case.layer]
            for case in (*images.SAME, *images.REFUSED, *images.STRICTER)
            if case not in same and case.verdict(found.major, "") != "hangs"
        }
        alone |= {str(layers): images.depth(layers) for layers in (MAX_LAYERS, MAX_LAYERS + 1)}
        with ThreadPoolExecutor(4) as pool:  # the engine waits for the disk most of the time
            found.refusals.update(zip(alone, pool.map(lambda item: _refusal(engine, *item), alone.items()), strict=True))
        engine.stop()
        found.trees = dump_overlay2(engine.data_root)
        found.metadata = layer_metadata(engine.data_root)
    yield found
    shutil.rmtree(workdir)  # hundreds of layers, with the oddest names


def _refusal(engine: Dockerd, name: str, layers: list[bytes]) -> str | None:
    archive = engine.workdir / f"{sha256(name.encode())[7:]}.tar"
    done = engine.docker("load", "-i", docker_archive(archive, [ImageSpec(layers, tags=["one:1"])]), check=False)
    archive.unlink()
    return (done.stdout + done.stderr).decode(errors="replace") if done.returncode else None


def our_tree(layer: bytes) -> tuple[LayerTree, list[Record]]:
    with tempfile.TemporaryFile() as file:
        file.write(layer)
        file.flush()
        tar = FileSlice(file.fileno(), 0, len(layer))
        tree, _ = unpack_layer(tar, where="layer", epoch=EPOCH, entries_max=10_000, note=lambda text: None)
        return tree, records_of_entries(tree.stream(b"", tar))


def by_name(case: images.Case) -> str:
    return case.name


@pytest.mark.parametrize("case", images.SAME, ids=by_name)
def test_the_tree_of_a_layer_is_what_the_engine_unpacks(case: images.Case, truth: Truth) -> None:
    tree, ours = our_tree(case.layer)
    verdict = case.verdict(truth.major, "accepted")
    if verdict == "refused":
        assert truth.refusals[case.name] is not None, "the engine takes it after all: update `newer`"
        return
    theirs = truth.trees[truth.chains[case.name]]
    found = differences(ours, theirs, epoch=EPOCH, started_epoch=truth.started_epoch)
    if verdict == "other tree":
        assert found, "the engine agrees after all: update `newer`"
        return
    assert found == []
    assert truth.metadata[truth.chains[case.name]]["size"] == str(tree.size_bytes)
    assert truth.metadata[truth.chains[case.name]]["diff"] == sha256(case.layer)


@pytest.mark.parametrize("case", images.REFUSED, ids=by_name)
def test_what_the_engine_refuses_is_refused(case: images.Case, truth: Truth) -> None:
    with pytest.raises(Refused):
        our_tree(case.layer)
    said = truth.refusals[case.name]
    assert (said is None) == (case.verdict(truth.major, "refused") == "accepted"), said


@pytest.mark.parametrize("case", images.STRICTER, ids=by_name)
def test_what_is_refused_on_purpose_the_engine_would_take(case: images.Case, truth: Truth) -> None:
    with pytest.raises(Refused):
        our_tree(case.layer)
    said = truth.refusals[case.name]
    assert (said is None) == (case.verdict(truth.major, "accepted") == "accepted"), said


def test_the_engine_takes_125_layers_and_no_more(truth: Truth) -> None:
    assert truth.refusals[str(MAX_LAYERS)] is None
    assert "max depth exceeded" in (truth.refusals[str(MAX_LAYERS + 1)] or "")
