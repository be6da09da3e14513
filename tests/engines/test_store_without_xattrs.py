"""Stores with `squashfs: {whiteouts: explicit}`: what the kernel shows and what real engines make of them, beside ordinary stores."""

from __future__ import annotations

import io
import json
import pickle
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from archives import ImageSpec, docker_archive
from commandline import shiplap_command
from debianimages import debian_images
from engines import runnable
from engines.dockerd import Dockerd
from engines.installations import Installation
from engines.podmanstore import DevicePodman
from engines.privateroot import PrivateRoot
from shiplap.rootfs.squashfs.file import open_image_file
from shiplap.rootfs.squashfs.superblock import read_superblock

STORE = "/usr/share/shiplap/store"
EPOCH = 765432101
# Lines of runnable.CHECK that only a file capability gives.
CAPABLE = f"CapEff:\t{runnable.CAPABILITY_BIT:016x}"


@dataclass(frozen=True)
class Built:
    """``marked`` and ``plain``: output folders of one and the same images, as overlayfs marks them and without attributes."""

    folder: Path
    marked: Path
    plain: Path
    podman: Path
    specs: dict[str, ImageSpec]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    work = tmp_path_factory.mktemp("built")
    grown, changed = debian_images()
    specs = {"localhost/app:1": runnable.image("localhost/app:1"), "debian:grown": grown, "debian:changed": changed}
    docker_archive(work / "images.tar", [ImageSpec(spec.layers, [name], config=spec.config) for name, spec in specs.items()])
    lost = {"localhost/app:1": ["/bin/cap-cat"], "debian:changed": ["/usr/bin"], "debian:grown": []}
    images = [{"ref": name, "from": f"docker-archive:images.tar:{name}", "allow-lost-xattrs": lost[name]} for name in specs]
    for name, keys in {
        "marked": {"squashfs": {"level": 1}},
        "plain": {"squashfs": {"level": 1, "whiteouts": "explicit"}},
        "podman": {"squashfs": {"level": 1, "whiteouts": "explicit"}, "engine": "podman"},
    }.items():
        manifest = {"version": 1, "epoch": EPOCH, "images": images, **keys}
        (work / f"{name}.yaml").write_text(json.dumps(manifest))
        done = shiplap_command("build", "-f", str(work / f"{name}.yaml"), "-o", str(work / name))
        assert done.returncode == 0, done.stderr
    return Built(work, work / "marked", work / "plain", work / "podman", specs)


_VIEWS = """
import json, os, pickle, subprocess, sys
sys.path[:0] = {path!r}
from squashfsimages import facts_of_host_tree
views = []
for store, options in {recipe!r}:
    for image in json.load(open(store + "/store.json"))["images"]:
        lower = ":".join(store + "/layers/" + layer["chainID"][7:] for layer in reversed(image["layers"]))
        os.makedirs("/run/view", exist_ok=True)
        subprocess.run(["mount", "-t", "overlay", "-o", f"ro,{{options}}lowerdir=/run/empty:{{lower}}", "none", "/run/view"], check=True)
        views.append([fact for fact in facts_of_host_tree(b"/run/view") if fact[0]])
        subprocess.run(["umount", "/run/view"], check=True)
sys.stdout.buffer.write(pickle.dumps(views))
"""


def test_the_kernel_shows_the_same_trees_entry_by_entry(built: Built, tmp_path: Path) -> None:
    """Through SquashFS and overlayfs; with `userxattr` overlayfs does not see the marks, as if SquashFS had no attributes."""
    mounts = [(built.marked / "store.squashfs", "/run/marked"), (built.plain / "store.squashfs", "/run/plain")]
    recipe = [("/run/marked", ""), ("/run/plain", ""), ("/run/plain", "userxattr,"), ("/run/marked", "userxattr,")]
    with PrivateRoot(tmp_path, mounts=mounts) as root:
        root.run(["mkdir", "/run/empty"])
        said = root.run([sys.executable, "-c", _VIEWS.format(path=sys.path, recipe=recipe)]).stdout
    views = pickle.loads(said)
    count = len(built.specs)
    marked, plain, plain_unseen, marked_unseen = (views[start : start + count] for start in range(0, 4 * count, count))
    assert sum(map(len, marked)) > 3000
    assert [[_without_xattrs(fact) for fact in view] for view in marked] == plain
    assert plain_unseen == plain
    # The same mount of the ordinary store shows what the images deleted: the comparison can fail.
    seen, unseen = ({fact[0] for view in views for fact in view} for views in (marked, marked_unseen))
    assert b"opaque/old".hex() in unseen - seen


def _without_xattrs(fact: tuple[object, ...]) -> tuple[object, ...]:
    return (*fact[:-2], [], fact[-1])


def test_docker_runs_and_saves_from_it(built: Built, installation: Installation, tmp_path: Path) -> None:
    root = installation.demand("docker")
    with Dockerd(tmp_path, base=root, volatile=True, mounts=[(built.plain / "store.squashfs", STORE)], start=False) as engine:
        engine.seed(f"{STORE}/skeleton")
        engine.start()
        said = set(engine.docker("run", "--rm", "--network", "none", "localhost/app:1").stdout.decode().splitlines())
        saved = {name: engine.docker("save", name).stdout for name in built.specs}
        engine.docker(
            "run", "--name", "writer", "--network", "none", "--user", "0", "localhost/app:1", "/bin/sh", "-c", "echo x >/opaque/old"
        )
        assert engine.docker("diff", "writer").stdout.decode().split("\n") == ["C /opaque", "A /opaque/old", ""]
        engine.docker("commit", "writer", "committed:1")
        listed = engine.docker("run", "--rm", "--network", "none", "committed:1", "/bin/ls", "/opaque").stdout
    assert runnable.expected_lines() - said == {CAPABLE}
    assert not runnable.hidden_lines() & said
    assert listed == b"new\nold\n"
    for name, spec in built.specs.items():
        # The engine puts the tars together again by tar-split, which knows nothing of our whiteouts.
        assert _layers(saved[name]) == list(spec.layers), name


def _layers(saved: bytes) -> list[bytes]:
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        held = {one.name: archive.extractfile(one) for one in archive if one.isfile()}
        read = {name: file.read() for name, file in held.items() if file is not None}
    return [read[name] for name in json.loads(read["manifest.json"])[0]["Layers"]]


def test_podman_runs_and_saves_from_it(built: Built, installation: Installation, tmp_path: Path) -> None:
    base = installation.demand("podman")
    mounts = [(built.podman / "store.squashfs", STORE)]
    with DevicePodman(tmp_path, base=base, mounts=mounts, stores=[STORE]) as engine:
        said = set(engine.run("localhost/app:1").stdout.decode().splitlines())
        engine.podman("save", "-o", tmp_path / "saved.tar", "localhost/app:1")
        if int(engine.version.split(".")[0]) >= 5:
            engine.podman("system", "check")
    assert runnable.expected_lines() - said == {CAPABLE}
    assert not runnable.hidden_lines() & said
    assert _layers((tmp_path / "saved.tar").read_bytes()) == list(built.specs["localhost/app:1"].layers)


@pytest.mark.parametrize("form", ["plain", "podman"])
def test_it_verifies_and_has_no_attribute_table(built: Built, form: str) -> None:
    done = shiplap_command("verify", str(built.folder / form))
    assert done.returncode == 0, done.stderr
    with open_image_file(built.folder / form / "store.squashfs") as file:
        assert read_superblock(file).xattr_table is None
    identity = json.loads((built.folder / form / "store.json").read_text())
    assert identity["squashfs"]["whiteouts"] == "explicit"
