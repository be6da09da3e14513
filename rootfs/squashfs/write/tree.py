"""The tree at the end of the stream: inodes get their numbers, and the inode and directory tables are written together."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import NamedTuple

from shiplap.rootfs.squashfs.write.directorytable import DirectoryTable, Listing, Name
from shiplap.rootfs.squashfs.write.inodetable import DIRECTORY, InodeRows, InodeTable
from shiplap.rootfs.squashfs.write.names import ROOT, Names


class Numbered(NamedTuple):
    """Numbers from 1 by inode index, and the order of the directories: each after all that lie in it."""

    numbers: array[int]
    directories: array[int]


def number_inodes(names: Names, rows: InodeRows) -> Numbered:
    """What lies in one directory gets numbers in a row, by name, after all that lies deeper; the root gets the last one.

    This is also the inodes' order in their table, so that what ``ls -l`` asks for lies together. An inode of many
    names has its place with the first of them.
    """
    numbers = array("I", bytes(4 * len(rows)))
    directories = array("I")
    count = 0
    for directory in _bottom_up(names, rows):
        directories.append(directory)
        for _, inode in names.children(directory):
            if not numbers[inode]:
                count += 1
                numbers[inode] = count
    numbers[ROOT] = count + 1
    return Numbered(numbers, directories)


def _bottom_up(names: Names, rows: InodeRows) -> Iterator[int]:
    def below(directory: int) -> Iterator[int]:
        return (inode for _, inode in names.children(directory) if rows.type(inode) == DIRECTORY)

    stack = [(ROOT, below(ROOT))]
    while stack:
        directory, inside = stack[-1]
        deeper = next(inside, None)
        if deeper is None:
            stack.pop()
            yield directory
        else:
            stack.append((deeper, below(deeper)))


def write_tree(
    names: Names, rows: InodeRows, numbered: Numbered, link_counts: array[int], inodes: InodeTable, listings: DirectoryTable
) -> None:
    """Write every inode and every listing. A listing needs its inodes' places, a directory's inode its listing's."""
    numbers = numbered.numbers
    written = 0
    done: dict[int, Listing] = {}  # of directories whose inode comes with those of its neighbours
    for directory in numbered.directories:
        own_number = numbers[directory]
        subdirectories = 0
        for _, inode in names.children(directory):
            is_directory = rows.type(inode) == DIRECTORY
            subdirectories += is_directory
            if numbers[inode] > written:
                written = numbers[inode]
                if is_directory:
                    inodes.write_directory(inode, written, done.pop(inode), own_number)
                else:
                    inodes.write(inode, written, link_counts[inode])
        done[directory] = listings.write(_lines(names.children(directory), rows.type, inodes.references, numbers), 2 + subdirectories)
    inodes.write_directory(ROOT, numbers[ROOT], done[ROOT], len(rows) + 1)


def _lines(
    children: Iterator[tuple[bytes, int]], type_of: Callable[[int], int], references: array[int], numbers: array[int]
) -> Iterator[Name]:
    for name, inode in children:
        yield Name(name, type_of(inode), references[inode], numbers[inode])
