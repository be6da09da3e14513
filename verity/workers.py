"""Hashing one level with all cores.

The workers are this same Python running ``blocks.py``, not forks (another thread may hold a lock) and not
multiprocessing (it would import the caller's main module again). How the work is cut into shares depends on
its size only, so what is found and reported is the same for any number of workers.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from shiplap.core.errors import OutsideFailure
from shiplap.verity import blocks
from shiplap.verity.blocks import LevelHashing

# Starting two workers takes about 30 ms. Measured on two busy cores, both ways took as long at 64 to 128 MiB.
PARALLEL_FROM_BYTES = 48 << 20
# All share numbers are written at once, before anyone must have read one. A pipe of one page, the least that Linux
# gives, holds 512.
SHARES_MAX = 512
SHARE_MIN_BYTES = 4 << 20

Advance = Callable[[int], object]


class ReadFailure(OutsideFailure):
    """A file could not be read to its end while it was hashed."""


class WriteFailure(OutsideFailure):
    """The hash tree could not be written."""


@dataclass(slots=True)
class Findings:
    """What a comparison found: numbers of child blocks whose digest differs, and of parents with stray bytes, unsorted."""

    children: list[int] = field(default_factory=list)
    spare: list[int] = field(default_factory=list)


def share_parents(child_bytes: int, parent_blocks: int) -> int:
    """How many parent blocks make one share of a level."""
    shares = max(1, min(SHARES_MAX, parent_blocks, child_bytes // SHARE_MIN_BYTES))
    return -(-parent_blocks // shares)


def available_cores() -> int:
    return len(os.sched_getaffinity(0))


def hash_level(
    work: LevelHashing, children: int, parent: int, *, label: str, jobs: int | None = None, advance: Advance | None = None
) -> Findings:
    """Write or compare one level; ``children`` and ``parent`` are descriptors of the two files.

    ``label``: what is read, for messages. ``jobs``: worker processes, default one for each core we may use.
    ``advance``: called with the number of child bytes done. Raises ReadFailure, WriteFailure.
    """
    findings = Findings()
    report = _reporter(findings, label, advance)
    jobs = min(available_cores() if jobs is None else jobs, work.shares)
    if jobs < 2 or work.child_blocks * work.child_block_bytes < PARALLEL_FROM_BYTES or not _can_start_workers():
        for share in range(work.shares):
            blocks.hash_share(work, share, children, parent, report)
    else:
        with _workers(work, children, parent, jobs) as processes:
            _collect(processes, report)
    return findings


def rebuild_parent(work: LevelHashing, index: int, children: int, label: str) -> bytes:
    """What the parent block number ``index`` should be, from its children alone. Raises ReadFailure."""
    report = _reporter(Findings(), label, None)
    return b"".join(parent for _, parent in blocks.parents(work, children, index, 1, report))


def _reporter(findings: Findings, label: str, advance: Advance | None) -> blocks.Report:
    """Takes what the hashing reports: collects differences, raises failures."""

    def report(code: int, value: int) -> None:
        if code == blocks.DONE_BYTES:
            if advance is not None:
                advance(value)
        elif code == blocks.CHILD_DIFFERS:
            findings.children.append(value)
        elif code == blocks.SPARE_DIFFERS:
            findings.spare.append(value)
        elif code == blocks.READ_SHORT:
            raise ReadFailure(f"{label}: ended at byte {value} while it was read", hint="something else is changing it")
        elif code == blocks.READ_FAILED:
            raise ReadFailure(f"cannot read {label}: {os.strerror(value)}")
        else:
            assert code == blocks.WRITE_FAILED
            raise WriteFailure(f"cannot write the hash tree: {os.strerror(value)}")

    return report


def _can_start_workers() -> bool:
    # Frozen programs and zip imports have no interpreter or no file to run.
    return bool(sys.executable) and os.path.isfile(blocks.__file__)  # noqa: PTH113


@contextmanager
def _workers(work: LevelHashing, children: int, parent: int, jobs: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Workers that have begun; leaving the context by an exception kills them.

    They get their share numbers when all of them are in the list. An interrupt may come between the start of a
    worker and its place in the list, so that nobody kills it: it then reads the end of an empty pipe and writes nothing.
    """
    numbers, todo = os.pipe()
    processes: list[subprocess.Popen[bytes]] = []
    try:
        try:
            # -P: this folder's modules must not shadow the standard library's. -S: nothing of site-packages is needed.
            argv = [sys.executable, "-P", "-S", blocks.__file__, *blocks.worker_arguments(work, children, parent)]
            for _ in range(jobs):
                processes.append(_start(argv, numbers, (children, parent)))  # noqa: PERF401 - those started count when one fails
            os.write(todo, b"".join(map(blocks.SHARE_NUMBER.pack, range(work.shares))))
        finally:
            os.close(todo)
        yield processes
    except BaseException:
        for process in processes:
            process.kill()
        raise
    finally:
        os.close(numbers)
        for process in processes:
            assert process.stdout is not None
            process.stdout.close()
            process.wait()


def _start(argv: list[str], numbers: int, descriptors: tuple[int, ...]) -> subprocess.Popen[bytes]:
    try:
        # An own process group: Ctrl-C comes to us, and we end the workers.
        return subprocess.Popen(argv, stdin=numbers, stdout=subprocess.PIPE, pass_fds=descriptors, process_group=0)
    except OSError as error:
        raise OutsideFailure(f"cannot start a hashing worker: {error.strerror}", hint="--jobs 1 needs none") from error


def _collect(processes: list[subprocess.Popen[bytes]], report: blocks.Report) -> None:
    """Hand on what the workers say until all have ended."""
    rest = dict.fromkeys(range(len(processes)), b"")
    with selectors.DefaultSelector() as selector:
        for number, process in enumerate(processes):
            assert process.stdout is not None
            selector.register(process.stdout, selectors.EVENT_READ, number)
        while selector.get_map():
            for key, _ in selector.select():
                said = os.read(key.fd, 1 << 16)
                if not said:
                    selector.unregister(key.fileobj)
                    _check_end(processes[key.data])
                    continue
                said = rest[key.data] + said
                whole = len(said) - len(said) % blocks.RECORD.size
                rest[key.data] = said[whole:]
                for code, value in blocks.RECORD.iter_unpack(said[:whole]):
                    report(code, value)


def _check_end(process: subprocess.Popen[bytes]) -> None:
    returncode = process.wait()
    if returncode < 0:
        raise OutsideFailure(f"a hashing worker was ended by signal {-returncode}", hint="out of memory? --jobs 1 uses none")
    if returncode:
        raise RuntimeError(f"a hashing worker failed with exit code {returncode}; its traceback is above")
