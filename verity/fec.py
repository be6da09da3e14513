"""Forward error correction, by ``veritysetup``: it is the reference, and its output is deterministic.

It computes the tree a second time; that its root hash is ours is checked.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from shiplap.core.errors import OutsideFailure, Refused
from shiplap.core.run import find, run
from shiplap.verity.area import fresh_file, write_at
from shiplap.verity.tree import Tree

ROOTS_MIN, ROOTS_MAX = 2, 24
_COPY_BYTES = 1 << 20


class UnfitCorrection(Refused):
    """Error correction that dm-verity does not offer."""


def check_fec(tree: Tree, roots: int) -> str:
    """Whether FEC with ``roots`` parity bytes can be made for ``tree``; returns the program that makes it.

    Raises UnfitCorrection, ProgramMissing.
    """
    if not ROOTS_MIN <= roots <= ROOTS_MAX:
        raise UnfitCorrection(f"{roots} parity bytes are not possible", hint=f"from {ROOTS_MIN} to {ROOTS_MAX}")
    if tree.parameters.data_block_bytes != tree.parameters.hash_block_bytes:
        raise UnfitCorrection("error correction needs data and hash blocks of one size")
    return find("veritysetup", package="cryptsetup-bin")


def write_fec(data: Path, fec_file: Path, tree: Tree, root_hash: str, roots: int) -> None:
    """Write the parity over the data and hash blocks of ``tree``, which ``data`` begins with, into ``fec_file``.

    The parity depends neither on the superblock nor on where the hash area lies. Raises what check_fec raises,
    OutsideFailure, and UnwritableFile.
    """
    program = check_fec(tree, roots)
    parameters = tree.parameters
    with fresh_file(fec_file) as target, tempfile.TemporaryDirectory(prefix="shiplap-fec-") as folder:
        parity, root_file = Path(folder, "parity"), Path(folder, "root")
        run(
            [
                program,
                "format",
                "--no-superblock",
                f"--format={parameters.hash_type}",
                f"--hash={parameters.hash_name}",
                f"--data-blocks={tree.data_blocks}",
                f"--data-block-size={parameters.data_block_bytes}",
                f"--hash-block-size={parameters.hash_block_bytes}",
                f"--salt={parameters.salt.hex() or '-'}",
                f"--fec-device={parity}",
                f"--fec-roots={roots}",
                f"--root-hash-file={root_file}",
                # Absolute: a name may begin with "-".
                data.absolute(),
                Path(folder, "tree"),
            ]
        )
        theirs = root_file.read_text(encoding="ascii").strip()
        if theirs != root_hash:
            raise OutsideFailure(
                f"veritysetup computes the root hash {theirs} for {data}, ours is {root_hash}", hint="something else is changing the file"
            )
        with parity.open("rb") as made:
            offset_bytes = 0
            while piece := made.read(_COPY_BYTES):
                write_at(target, piece, offset_bytes, fec_file)
                offset_bytes += len(piece)
