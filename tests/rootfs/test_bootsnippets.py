"""The boot snippets: their texts (committed in goldenboot/), and what the programs that read them say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from requirement import SEARCH_PATH, require
from shiplap.rootfs.bootsnippets import FILE_NAMES, BootSettings, SealedImage, render
from shiplap.rootfs.bootsnippets.layouts import slices
from shiplap.rootfs.bootsnippets.shell import SET_PARTUUID
from shiplap.rootfs.gpt import Partition, write_disk
from shiplap.verity.discoverable import partition_uuids
from shiplap.verity.parameters import VerityParameters
from shiplap.verity.tree import lay_out

GOLDEN = Path(__file__).parent / "goldenboot"
LAYOUT = lay_out(VerityParameters(salt=b"\x5a" * 32, uuid="00000000-0000-5000-8000-000000000000"), 18246)
ROOT = SealedImage("root", "rootfs.squashfs", "rootfs.verity", "ab" * 16 + "cd" * 16, LAYOUT, 18246 * 4096, 600_000, "a1" * 32, "a2" * 32)
STORE = SealedImage("store", "store.squashfs", "store.verity", "12" * 16 + "34" * 16, LAYOUT, 5_000_000, 40_960, "b1" * 32, "b2" * 32)
SETTINGS = BootSettings(
    "arm64", ROOT, STORE, "dddddddd-0000-5000-8000-000000000000", "eeeeeeee-0000-5000-8000-000000000000", data_bytes=64 << 20
)


def program(name: str) -> str:
    require("gpt" if name == "sfdisk" else "snippets")
    found = shutil.which(name, path=SEARCH_PATH)
    assert found is not None
    return found


def test_every_text_is_the_committed_one() -> None:
    texts = render(SETTINGS)
    if os.environ.get("SHIPLAP_WRITE_GOLDEN"):  # then look at the difference
        for name, text in texts.items():
            (GOLDEN / name).write_text(text)
    assert {path.name: path.read_text() for path in GOLDEN.iterdir()} == texts


def test_every_name_is_announced_and_rendering_is_pure() -> None:
    assert tuple(sorted(render(SETTINGS))) == FILE_NAMES
    assert render(SETTINGS) == render(SETTINGS)


def test_a_second_slot_has_the_same_sizes_and_uuids_of_its_own() -> None:
    both = list(slices(replace(SETTINGS, slots=2, root=replace(ROOT, room_bytes=200 << 20))))
    assert len({one.uuid for one in both}) == len(both) == 9
    first, second = both[:4], both[4:8]
    for one, other in zip(first, second, strict=True):
        assert (one.name[:-1], one.type_uuid, one.size_bytes, other.file) == (other.name[:-1], other.type_uuid, other.size_bytes, None)
    assert first[0].size_bytes == 200 << 20
    # 51,200 digests of 32 bytes: 400 blocks, 4 and 1 above them, and the superblock's.
    assert first[1].size_bytes == 406 * 4096
    assert both[-1].name == "data"


def test_without_partitions_of_the_store_nothing_names_it() -> None:
    for name, text in render(replace(SETTINGS, store=None)).items():
        assert STORE.root_hash not in text and "store.squashfs" not in text and STORE.data_uuid not in text, name


def test_root_and_store_change_together_in_each_updater() -> None:
    texts = render(SETTINGS)
    for name in ("rauc-hook", "swupdate-switch"):
        for uuid in (*partition_uuids(ROOT.root_hash), *partition_uuids(STORE.root_hash)):
            assert uuid in texts[name], name
    for file in ("rootfs.squashfs", "rootfs.verity", "store.squashfs", "store.verity"):
        assert texts["sw-description"].count(f'filename = "{file}"') == 2, "one for each slot"
        assert file in texts["mender-module"]
    # The module that runs is the old firmware's: nothing of the new one may stand in it.
    assert ROOT.root_hash not in texts["mender-module"] and ROOT.data_uuid not in texts["mender-module"]
    for name in ("rauc-mark-good.conf", "swupdate-health.service", "mender-module"):
        assert "shiplap-target status --wait 120" in texts[name]


def test_no_snippet_finds_the_store_by_label_or_number_at_boot() -> None:
    for name in ("kernel-cmdline.txt", "dm-mod.create.txt", "grub.cfg", "boot.cmd"):
        text = render(SETTINGS)[name]
        assert "by-partlabel" not in text and "LABEL=" not in text and "/dev/vd" not in text and "/dev/sd" not in text


@pytest.mark.parametrize("name", ["rauc-hook", "swupdate-switch", "mender-module"])
def test_scripts_are_clean_posix_sh(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(render(SETTINGS)[name])
    for shell in ("dash", "bash"):
        subprocess.run([program(shell), "-n", tmp_path / name], check=True)
    done = subprocess.run([program("shellcheck"), "-s", "sh", tmp_path / name], capture_output=True, text=True, check=False)
    assert done.stdout == ""


@pytest.mark.parametrize("name", ["grub.cfg", "grub-slots.cfg"])
def test_grub_takes_the_menu_entry_and_the_choice_of_slots(name: str, tmp_path: Path) -> None:
    (tmp_path / "grub.cfg").write_text(render(SETTINGS)[name])
    subprocess.run([program("grub-script-check"), tmp_path / "grub.cfg"], check=True)


@pytest.mark.parametrize(("said", "slot"), [(None, "a"), ("", "a"), ("a", "a"), ("b", "b")])
def test_mender_s_module_knows_the_slot_as_the_boot_loaders_do_also_when_nothing_was_ever_set(said: str | None, slot: str) -> None:
    """A factory's environment has no bootslot: whoever took that for `not a` would write over the slot that runs."""
    function = next(line for line in render(SETTINGS)["mender-module"].splitlines() if line.startswith("booted() {"))
    environment = "fw_printenv() { return 1; }" if said is None else f"fw_printenv() {{ echo '{said}'; }}"
    done = subprocess.run(["sh", "-euc", f"{environment}\n{function}\nbooted"], capture_output=True, text=True, check=True)
    assert done.stdout == f"{slot}\n"
    for name in ("grub-slots.cfg", "boot-slots.cmd"):
        assert "!= b" in render(SETTINGS)[name]


def test_each_snippet_says_at_its_top_where_it_goes_and_what_is_to_be_edited() -> None:
    # Command lines are read as they are; the FIT says what has to lie beside it.
    for name, text in render(SETTINGS).items():
        if not name.endswith((".txt", ".its", ".env")):
            head = "\n".join(text.splitlines()[:8])
            assert "Where it goes: " in head, name
            assert "o edit" in head, name


def test_the_device_tree_compiler_takes_the_fit(tmp_path: Path) -> None:
    texts = render(SETTINGS)
    for name in ("kernel", "initrd.img", "board.dtb"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "boot.cmd").write_text(texts["boot.cmd"])
    (tmp_path / "fit.its").write_text(texts["fit.its"])
    command = [program("dtc"), "-I", "dts", "-O", "dtb", "-o", "fit.itb", "fit.its"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"roothash={ROOT.root_hash}".encode() in (tmp_path / "fit.itb").read_bytes()


def test_the_uuids_that_an_updater_sets_are_in_the_table_afterwards(tmp_path: Path) -> None:
    """The scripts' own words for sfdisk, on a disk image; and the scripts' way from a root hash to a UUID."""
    disk = tmp_path / "disk"
    parts = [
        Partition(one.name, one.type_uuid, f"00000000-0000-0000-0000-00000000000{at}", 4096) for at, one in enumerate(slices(SETTINGS))
    ]
    write_disk(disk, parts, SETTINGS.disk_uuid)
    call = next(line.split() for line in SET_PARTUUID.splitlines() if "sfdisk" in line)
    assert call[:5] == ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", "--part-uuid"]
    module = render(SETTINGS)["mender-module"]
    uuid_function = next(line for line in module.splitlines() if line.startswith("uuid() {"))
    halves = 'uuid "$(echo "$1" | cut -c1-32)"; uuid "$(echo "$1" | sed \'s/.*\\(.\\{32\\}\\)$/\\1/\')"'
    assert "cut -c1-32" in module and "sed 's/.*\\(.\\{32\\}\\)$/\\1/'" in module
    said = subprocess.run(["sh", "-c", f"{uuid_function}\n{halves}", "sh", ROOT.root_hash], capture_output=True, text=True, check=True)
    assert tuple(said.stdout.split()) == partition_uuids(ROOT.root_hash)
    for number, uuid in enumerate(said.stdout.split(), 1):
        subprocess.run([program("sfdisk"), *call[1:5], disk, str(number), uuid], check=True, capture_output=True)
    table = json.loads(subprocess.run([program("sfdisk"), "-J", disk], capture_output=True, check=True).stdout)["partitiontable"]
    assert [one["uuid"].lower() for one in table["partitions"]][:2] == list(partition_uuids(ROOT.root_hash))
