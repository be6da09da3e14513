"""How long `shiplap verify` of a whole store image takes, as multiples of only decompressing it.

    benchmarks/verify_speed.py IMAGE_ARCHIVE [LEVEL_OR_COMPRESSION…]

Ways, each a whole process, in every round: our reader decompressing every block in one thread; unsquashfs throwing
everything away, with all processors and with one; verify. Several layers are needed to keep several processors busy.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from measuring import ROOT, SHIPLAP, Run, measured

_ROUNDS = 5
_READ = """
import sys
from pathlib import Path
from shiplap.rootfs.squashfs import open_squashfs
with open_squashfs(Path(sys.argv[1])) as image:
    for entry in image.entries():
        if entry.content is not None:
            for chunk in entry.content.chunks():
                pass
"""


def main(archive: Path, forms: Sequence[str]) -> None:
    sys.path.insert(0, str(ROOT / ".ns"))
    with tempfile.TemporaryDirectory(prefix="shiplap-verify-speed-") as name:
        folder = Path(name)
        for form in forms:
            image = _built(archive, form, folder / form)
            ways: dict[str, Sequence[str | Path]] = {
                "our reader, one thread": (sys.executable, "-c", _READ, image),
                "unsquashfs, one": ("unsquashfs", "-quiet", "-no-progress", "-processors", "1", "-pf", "/dev/null", image),
                "unsquashfs, all": ("unsquashfs", "-quiet", "-no-progress", "-pf", "/dev/null", image),
                "shiplap verify": (*SHIPLAP, "verify", image),
            }
            runs: dict[str, list[Run]] = {way: [] for way in ways}
            for _ in range(_ROUNDS):
                for way, argv in ways.items():
                    runs[way].append(measured(argv))
            base = min(run.wall for run in runs["our reader, one thread"])
            print(f"{form}: {image.stat().st_size >> 20} MiB; multiples of {base:.2f} s")
            for way, found in runs.items():
                wall = min(run.wall for run in found)
                cpu = statistics.median(run.cpu for run in found)
                peak = max(run.peak_bytes for run in found) >> 20
                print(f"  {way:24} wall {wall / base:5.2f}   CPU {cpu / base:5.2f}   peak {peak} MiB")


def _built(archive: Path, form: str, folder: Path) -> Path:
    """The store image of ``archive`` with zstd of that level, or with that compression."""
    folder.mkdir()
    settings = f"level: {form}" if form.isdigit() else f"compression: {form}"
    manifest = folder / "shiplap.yaml"
    # The name is the archive's only one; the digest of a store does not matter here.
    image = f'{{ref: "bench:1", from: "docker-archive:{archive.absolute()}"}}'
    manifest.write_text(f"version: 1\nimages: [{image}]\nsquashfs: {{{settings}}}\noutputs: [squashfs]\n")
    measured((*SHIPLAP, "build", "-f", manifest, "-o", folder / "out"))
    return folder / "out" / "store.squashfs"


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or ["3"])
