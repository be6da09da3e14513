"""A data-root that a real Docker filled and left: loaded images, a built one, a committed one, one without a name."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from archives import ImageSpec, docker_archive
from engines.dockerd import Dockerd
from images import directory, file, symlink
from layertar import build

BASE = build([directory("bin"), file("bin/app", b"application" * 5000, mode=0o755), file("etc/passwd", b"root:x:0:0::/:/bin/sh\n")])
# A name through a link that the layer makes itself, and one that the engine's own tools would never write.
TOP = build(
    [
        directory("real"),
        symlink("ln", "real"),
        file("ln/inside", b"through a link\n"),
        file("./etc/../etc/app.conf", b"verbose"),
        file("etc/.wh.passwd"),
    ]
)
APP = ImageSpec([BASE, TOP, TOP], ["app:1", "app:latest", "registry.example:5000/acme/app:7.10"])
OTHER = ImageSpec([BASE], ["other:1"])
UNTAGGED = ImageSpec([BASE, BASE])


@dataclass(frozen=True)
class LeftBehind:
    """``saved``: what `docker save` made of every image with a name, before the engine stopped. ``built``, ``committed``: image IDs."""

    root: Path
    saved: Path
    built: str
    committed: str
    work: Path

    def copy(self, folder: Path) -> Path:
        """A data-root to spoil."""
        return Path(shutil.copytree(self.root, folder / "docker", symlinks=True, copy_function=_copy))


def _copy(source: str, target: str) -> str:
    # Whiteouts are devices; what is copied here is to be spoilt, not run.
    return target if not Path(source).is_file() else shutil.copy2(source, target)


def fill(
    work: Path, *, base: Path = Path("/"), options: Sequence[str] = (), more: Sequence[ImageSpec] = (), small: bool = False
) -> LeftBehind:
    """``small``: the loaded images only."""
    with Dockerd(work, base=base, options=options) as engine:
        engine.docker("load", "-i", docker_archive(work / "loaded.tar", [APP, OTHER, UNTAGGED, *more]))
        built = committed = ""
        names = [*APP.tags, *OTHER.tags, *(tag for one in more for tag in one.tags)]
        if not small:
            context = work / "context"
            context.mkdir()
            (context / "data").write_text("made by a build\n")
            (context / "Dockerfile").write_text('FROM app:1\nCOPY data /srv/data\nENV A=b\nCMD ["/bin/app"]\n')
            engine.docker("build", "--quiet", "--tag", "built:1", str(context))
            engine.docker("create", "--name", "box", "app:1")
            engine.docker("cp", str(context / "data"), "box:/data")
            engine.docker("commit", "box", "committed:1")
            engine.docker("rm", "box")
            built, committed = engine.image_id("built:1"), engine.image_id("committed:1")
            names += ["built:1", "committed:1"]
        engine.docker("save", "--output", str(work / "saved.tar"), *names)
    return LeftBehind(engine.data_root, work / "saved.tar", built, committed, work)
