"""For the hash-tree tests: content, a naive builder to compare with, and the real ``veritysetup``."""

from __future__ import annotations

import hashlib
import os
import random
import struct
import subprocess
import sys
import uuid
from pathlib import Path

import shiplap.verity.format
from requirement import SEARCH_PATH
from shiplap.verity.format import VerityParameters

SALT = bytes(range(32))
UUID = "12345678-9abc-4def-8123-456789abcdef"


def parameters(**fields) -> VerityParameters:
    return VerityParameters(**{"salt": SALT, "uuid": UUID, **fields})


def content(size_bytes: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size_bytes)


def naive_area(data: bytes, parameters: VerityParameters) -> tuple[bytes, str]:
    """Hash area and root hash from the format's description, all in memory, nothing shared with the code under test."""

    def digest(block: bytes) -> bytes:
        salted = parameters.salt + block if parameters.hash_type == 1 else block + parameters.salt
        return hashlib.new(parameters.hash_name, salted).digest()

    digest_bytes = len(digest(b""))
    slot_bytes = digest_bytes
    if parameters.hash_type == 1:
        slot_bytes = next(size for size in (16, 32, 64) if size >= digest_bytes)
    fanout = 1
    while fanout * 2 * digest_bytes <= parameters.hash_block_bytes:
        fanout *= 2

    blocks = [data[at : at + parameters.data_block_bytes] for at in range(0, len(data), parameters.data_block_bytes)]
    levels = []
    while len(blocks) > 1:
        digests = [digest(block).ljust(slot_bytes, b"\0") for block in blocks]
        blocks = [b"".join(digests[at : at + fanout]).ljust(parameters.hash_block_bytes, b"\0") for at in range(0, len(digests), fanout)]
        levels.append(b"".join(blocks))
    area = b"".join(reversed(levels))
    if parameters.superblock:
        header = b"verity\0\0" + struct.pack("<II", 1, parameters.hash_type) + uuid.UUID(parameters.uuid).bytes
        header += parameters.hash_name.encode().ljust(32, b"\0")
        count = len(data) // parameters.data_block_bytes
        header += struct.pack("<IIQH", parameters.data_block_bytes, parameters.hash_block_bytes, count, len(parameters.salt))
        header = (header + bytes(6) + parameters.salt).ljust(512, b"\0")
        area = header.ljust(parameters.hash_block_bytes if levels else min(parameters.hash_block_bytes, 4096), b"\0") + area
    return area, digest(blocks[0]).hex()


def tool(*words: object) -> subprocess.CompletedProcess[str]:
    """Run the real veritysetup."""
    argv = ["veritysetup", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env={"PATH": SEARCH_PATH, "LC_ALL": "C"})


def options(parameters: VerityParameters) -> list[str]:
    """``parameters`` as options of veritysetup and of ``shiplap verity``."""
    words = [
        f"--hash={parameters.hash_name}",
        f"--data-block-size={parameters.data_block_bytes}",
        f"--hash-block-size={parameters.hash_block_bytes}",
        f"--salt={parameters.salt.hex() or '-'}",
        f"--uuid={parameters.uuid}",
        f"--format={parameters.hash_type}",
    ]
    return words if parameters.superblock else [*words, "--no-superblock"]


def tool_format(data: Path, hash_file: Path, parameters: VerityParameters, *more: str) -> str:
    """Let veritysetup format; returns its root hash."""
    done = tool("format", *options(parameters), *more, data, hash_file)
    assert done.returncode == 0, done.stderr
    return next(line.split()[-1] for line in done.stdout.splitlines() if line.startswith("Root hash:"))


def source_root() -> str:
    """The folder to put on PYTHONPATH so that another interpreter imports the same ``shiplap``."""
    return str(Path(os.path.abspath(shiplap.verity.format.__file__)).parents[2])


def command(*words: object, python: str = sys.executable, prefix: tuple[str, ...] = (), **run_options) -> subprocess.CompletedProcess[str]:
    """Run ``shiplap verity`` in a process of its own."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": source_root(), "PYTHONDONTWRITEBYTECODE": "1", **run_options.pop("env", {})}
    argv = [*prefix, python, "-m", "shiplap.cli", "verity", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, check=False, env=environment, **run_options)
