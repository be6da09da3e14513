"""The installer's own part, on files in the place of disks: what it writes, what it refuses, what a power cut leaves."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from requirement import SEARCH_PATH, require
from shiplap.core.entries import PathContent
from shiplap.rootfs.gpt import Partition, Placed, place, write_disk
from shiplap.rootfs.provision.iso9660 import write_iso
from shiplap.rootfs.provision.medium import plan_installation
from shiplap.verity.discoverable import LINUX_GENERIC, READ_ONLY_FLAG, partition_types

MIB = 1 << 20
SCRIPTS = Path(__file__).parents[2] / "rootfs/provision/files"
DISK_UUID = "11111111-2222-5333-8444-555555555555"
DATA_UUID = "dddddddd-eeee-5fff-8000-111111111111"
SHELLS = {"dash": ["dash"], "BusyBox": ["busybox", "sh"], "bash": ["bash", "--posix"]}


@dataclass(frozen=True)
class Medium:
    """A medium and the folder with the installer's files, as the initramfs has them."""

    iso: Path
    here: Path
    placed: tuple[Placed, ...]


def medium(folder: Path, *, root: bytes = b"root" * 300_000, data_mib: int = 3) -> Medium:
    require("libarchive-tools")
    folder.mkdir(parents=True)
    (folder / "root").write_bytes(root)
    (folder / "tree").write_bytes(bytes(5000) + b"tree")
    types = partition_types("amd64")
    uuid = hashlib.sha256(root).hexdigest()
    partitions = [
        Partition("root-a", types.root, f"aabbccdd-eeff-0011-2233-{uuid[:12]}", len(root), folder / "root", READ_ONLY_FLAG),
        Partition("root-verity-a", types.root_verity, f"aabbccdd-eeff-0011-2233-{uuid[-12:]}", 5004, folder / "tree", READ_ONLY_FLAG),
    ]
    if data_mib:
        partitions.append(Partition("data", LINUX_GENERIC, DATA_UUID, data_mib * MIB))
    placed = place(partitions)
    planned = plan_installation(placed, DISK_UUID, "a test", 0)
    write_iso(folder / "iso", planned.files, planned.volume, 0)
    subprocess.run(["bsdcpio", "-i", "--quiet"], input=planned.archive, cwd=folder, check=True)
    return Medium(folder / "iso", folder / "shiplap", placed)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Medium:
    return medium(tmp_path_factory.mktemp("medium") / "first")


def blank(path: Path, mib: int, fill: bytes = b"\0") -> Path:
    with path.open("wb") as file:
        file.write(fill * MIB)
        file.truncate(mib * MIB)
    return path


def install(
    source: Medium, disk: Path, shell: str = "dash", *, data: str = "new", overwrite: str = "no", before: str = ""
) -> subprocess.CompletedProcess[str]:
    """Source disk.sh and call its ``install_disk``, with a file as the disk. ``before``: shell text between the two."""
    require("shells")
    work = disk.parent / "work"
    work.mkdir(exist_ok=True)
    script = f"""\
HERE={source.here} work={work} data={data} overwrite={overwrite}
. {source.here}/disk.sh
. {source.here}/provision.conf
{before}
install_disk {source.iso} {disk} {disk.stat().st_size // 512}
"""
    command = [*SHELLS[shell], "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": SEARCH_PATH, "LC_ALL": "C"}, timeout=60)


def table(disk: Path) -> list[tuple[str, str, int, int]]:
    require("gpt")
    sfdisk = shutil.which("sfdisk", path=SEARCH_PATH)
    assert sfdisk is not None
    said = subprocess.run([sfdisk, "-J", disk], capture_output=True, text=True, check=True)
    assert said.stderr == ""
    return [
        (one["name"], one["uuid"].lower(), one["start"] // 2048, one["size"] // 2048)
        for one in json.loads(said.stdout)["partitiontable"]["partitions"]
    ]


def problems(disk: Path) -> str:
    require("gpt")
    sgdisk = shutil.which("sgdisk", path=SEARCH_PATH)
    assert sgdisk is not None
    return subprocess.run([sgdisk, "-v", disk], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_an_empty_disk_gets_every_partition_and_the_rest_is_for_data(first: Medium, tmp_path: Path, shell: str) -> None:
    disk = blank(tmp_path / "disk", 40, b"\xff" if shell == "dash" else b"\0")
    done = install(first, disk, shell)
    assert done.returncode == 0, done.stderr
    assert [(name, start, size) for name, _, start, size in table(disk)] == [("root-a", 1, 2), ("root-verity-a", 3, 1), ("data", 4, 35)]
    assert "No problems found" in problems(disk)
    content = disk.read_bytes()
    assert content[MIB : 3 * MIB] == (b"root" * 300_000).ljust(2 * MIB, b"\0")
    assert content[3 * MIB : 4 * MIB] == (bytes(5000) + b"tree").ljust(MIB, b"\0")
    for said in ("writing root-a, 2 MiB", "writing root-verity-a, 1 MiB", "the data partition is new: 35 MiB"):
        assert said in done.stderr


def test_on_a_disk_of_the_least_size_it_is_the_disk_image_s_own_table(first: Medium, tmp_path: Path) -> None:
    write_disk(tmp_path / "image", [one.partition for one in first.placed], DISK_UUID)
    disk = blank(tmp_path / "disk", 8)
    assert install(first, disk).returncode == 0
    assert disk.read_bytes() == (tmp_path / "image").read_bytes()


def test_a_disk_that_is_too_small_is_refused_and_not_touched(first: Medium, tmp_path: Path) -> None:
    disk = blank(tmp_path / "disk", 7)
    before = disk.read_bytes()
    done = install(first, disk)
    assert (done.returncode, disk.read_bytes() == before) == (1, True)
    assert "too small: it has 7 MiB, 8 are needed" in done.stderr


def other_table(path: Path) -> None:
    write_disk(path, [Partition("windows", LINUX_GENERIC, "00000000-1111-2222-3333-444444444444", 20 * MIB)], DISK_UUID)


def file_system(path: Path) -> None:
    blank(path, 40)
    with path.open("r+b") as file:
        file.seek(1024 + 56)
        file.write(b"\x53\xef")


@pytest.mark.parametrize("make", [other_table, file_system])
def test_somebody_else_s_disk_is_refused_unless_it_may_be_overwritten(
    first: Medium, tmp_path: Path, make: Callable[[Path], object]
) -> None:
    disk = tmp_path / "disk"
    make(disk)
    before = disk.read_bytes()
    done = install(first, disk)
    assert (done.returncode, disk.read_bytes() == before) == (1, True)
    assert "shiplap.overwrite=yes" in done.stderr
    assert install(first, disk, overwrite="yes").returncode == 0
    assert [name for name, *_ in table(disk)] == ["root-a", "root-verity-a", "data"]


def mark_data(disk: Path, at_mib: int) -> None:
    with disk.open("r+b") as file:
        file.seek(at_mib * MIB)
        file.write(b"what the user has" * 1000)


def has_mark(disk: Path, at_mib: int) -> bool:
    with disk.open("rb") as file:
        file.seek(at_mib * MIB)
        return file.read(17) == b"what the user has"


@pytest.mark.parametrize(("data", "kept"), [("keep", True), ("new", False)])
def test_an_existing_data_partition_is_kept_when_told_to(first: Medium, tmp_path: Path, data: str, kept: bool) -> None:
    disk = blank(tmp_path / "disk", 40)
    assert install(first, disk).returncode == 0
    mark_data(disk, 4)
    smaller = medium(tmp_path / "smaller", root=b"less" * 1000)
    done = install(smaller, disk, "BusyBox", data=data)
    assert done.returncode == 0, done.stderr
    data_start = 4 if kept else 3
    assert [(name, start) for name, _, start, _ in table(disk)] == [("root-a", 1), ("root-verity-a", 2), ("data", data_start)]
    assert has_mark(disk, 4) is kept
    assert "No problems found" in problems(disk)
    assert ("the data partition stays where it is" in done.stderr) is kept


def test_a_data_partition_in_the_way_of_a_larger_firmware_is_never_half_overwritten(first: Medium, tmp_path: Path) -> None:
    disk = blank(tmp_path / "disk", 40)
    assert install(first, disk).returncode == 0
    before = disk.read_bytes()
    done = install(medium(tmp_path / "larger", root=b"more" * 900_000), disk, data="keep")
    assert (done.returncode, disk.read_bytes() == before) == (1, True)
    assert "begins at 4 MiB, and this firmware needs the first 6 MiB: it cannot be kept" in done.stderr


def test_keep_without_anything_to_keep_makes_a_new_one(first: Medium, tmp_path: Path) -> None:
    disk = blank(tmp_path / "disk", 40)
    done = install(first, disk, data="keep")
    assert (done.returncode, "the data partition is new" in done.stderr) == (0, True)


def test_a_damaged_medium_is_found_and_leaves_no_table_to_boot_from(first: Medium, tmp_path: Path) -> None:
    copy = Medium(tmp_path / "iso", first.here, first.placed)
    data = bytearray(first.iso.read_bytes())
    data[data.index(b"root" * 1000) + 1000] ^= 1
    copy.iso.write_bytes(data)
    disk = blank(tmp_path / "disk", 40)
    done = install(copy, disk)
    assert done.returncode == 1
    assert "root-a on the medium is damaged" in done.stderr
    assert [name for name, *_ in table(disk)] == ["data"]


def test_a_disk_that_loses_what_is_written_is_told_from_a_bad_medium(first: Medium, tmp_path: Path) -> None:
    disk = blank(tmp_path / "disk", 40)
    lossy = 'forget_cached() { printf X | dd of="$1" bs=1 seek=1500000 conv=notrunc 2>/dev/null; }'
    done = install(first, disk, before=lossy)
    assert (done.returncode, "does not give back what was written to root-a: the disk is bad" in done.stderr) == (1, True)


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_power_cut_at_any_write_loses_no_kept_data_and_the_next_run_finishes(first: Medium, tmp_path: Path, cut: int) -> None:
    """Every ``dd`` that writes to the disk is counted; at the cut the program ends where it stands, with 600 bytes written."""
    disk = blank(tmp_path / "disk", 40)
    assert install(first, disk).returncode == 0
    mark_data(disk, 4)
    counting = f"""\
echo 0 >$work/calls
dd() {{
    case " $* " in
    *" of={disk} "*)
        calls=$(($(cat $work/calls) + 1)); echo $calls >$work/calls
        if [ $calls = {cut} ]; then
            cut_words=$(echo " $* " | sed 's| of={disk} | of='$work'/half |; s| seek=[0-9]*||; s| count=[0-9]*||')
            command dd $cut_words 2>/dev/null
            seek=$(echo " $* " | sed -n 's/.* seek=\\([0-9]*\\).*/\\1/p') bs=$(echo " $* " | sed -n 's/.* bs=\\([0-9]*\\).*/\\1/p')
            command dd if=$work/half of={disk} bs=4 count=150 seek=$((${{seek:-0}} * bs / 4)) conv=notrunc 2>/dev/null
            kill -9 $$
        fi ;;
    esac
    command dd "$@"
}}
"""
    smaller = medium(tmp_path / "smaller", root=b"less" * 1000)
    done = install(smaller, disk, data="keep", before=counting)
    assert done.returncode == -9, (done.returncode, done.stderr)
    again = install(smaller, disk, data="keep")
    assert again.returncode == 0, again.stderr
    assert has_mark(disk, 4)
    assert [(name, start) for name, _, start, _ in table(disk)] == [("root-a", 1), ("root-verity-a", 2), ("data", 4)]


def test_a_firmware_without_a_data_partition_is_installed_and_known_again(tmp_path: Path) -> None:
    source = medium(tmp_path / "medium", data_mib=0)
    disk = blank(tmp_path / "disk", 10)
    for _ in range(2):
        done = install(source, disk)
        assert done.returncode == 0, done.stderr
        assert [name for name, *_ in table(disk)] == ["root-a", "root-verity-a"]


@pytest.mark.parametrize("name", ["install", "disk.sh"])
def test_the_scripts_are_clean_posix_sh(name: str) -> None:
    require("snippets", "shells")
    done = subprocess.run(["shellcheck", "-s", "sh", SCRIPTS / name], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    for shell in SHELLS.values():
        subprocess.run([*shell, "-n", SCRIPTS / name], check=True)


def test_the_content_on_the_medium_is_what_was_given(first: Medium) -> None:
    content = PathContent(first.iso, first.iso.stat().st_size)
    assert content.size_bytes % MIB == 0
    listed = subprocess.run(["bsdtar", "-tf", first.iso], capture_output=True, text=True, check=True).stdout.split()
    assert listed == [".", "PART1.IMG", "PART2.IMG"]
