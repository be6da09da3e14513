"""A hash tree in the words of those who open it: the kernel's device-mapper table and ``veritysetup open``."""

from __future__ import annotations

from shiplap.verity.parameters import SECTOR_BYTES
from shiplap.verity.tree import Tree


def dm_table(tree: Tree, root_hash: str, *, data_device: str, hash_device: str) -> str:
    """The table line of the target (kernel documentation, admin-guide/device-mapper/verity)."""
    parameters = tree.parameters
    words = (
        0,
        tree.data_bytes // SECTOR_BYTES,
        "verity",
        parameters.hash_type,
        data_device,
        hash_device,
        parameters.data_block_bytes,
        parameters.hash_block_bytes,
        tree.data_blocks,
        tree.tree_offset_bytes // parameters.hash_block_bytes,
        parameters.hash_name,
        root_hash,
        parameters.salt.hex() or "-",
    )
    return " ".join(map(str, words))


def create_argument(tree: Tree, root_hash: str, *, name: str, data_device: str, hash_device: str) -> str:
    """The kernel command line's ``dm-mod.create=`` that opens the device read-only at boot (needs CONFIG_DM_INIT)."""
    return f'dm-mod.create="{name},,0,ro,{dm_table(tree, root_hash, data_device=data_device, hash_device=hash_device)}"'


def open_command(tree: Tree, root_hash: str, *, name: str, data_device: str, hash_device: str) -> tuple[str, ...]:
    """The words of the ``veritysetup open`` command that opens the device."""
    parameters = tree.parameters
    options = [f"--hash-offset={tree.area_offset_bytes}"] if tree.area_offset_bytes else []
    if not parameters.superblock:
        options += [
            "--no-superblock",
            f"--format={parameters.hash_type}",
            f"--hash={parameters.hash_name}",
            f"--data-blocks={tree.data_blocks}",
            f"--data-block-size={parameters.data_block_bytes}",
            f"--hash-block-size={parameters.hash_block_bytes}",
            f"--salt={parameters.salt.hex() or '-'}",
        ]
    return ("veritysetup", "open", *options, data_device, name, hash_device, root_hash)
