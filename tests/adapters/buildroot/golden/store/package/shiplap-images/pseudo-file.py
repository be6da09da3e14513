#!/usr/bin/env python3
# Written by `shiplap generate`.
"""pseudo-file.py FOLDER: what `unsquashfs -pf - STORE` writes, moved below FOLDER, for `mksquashfs -pf`."""

import re
import shutil
import sys

START_OF_DATA = b"# START OF DATA - DO NOT MODIFY\n"
# The name (a backslash escapes what follows), the type, the rest. Of a hard link the rest is a name, too.
ENTRY = re.compile(rb"((?:\\.|[^ \\])+) (.) ?(.*\n)", re.DOTALL)


def main():
    folder = sys.argv[1].strip("/").encode()
    source, target = sys.stdin.buffer, sys.stdout.buffer
    for line in source:
        entry = None if line.startswith(b"#") else ENTRY.fullmatch(line)
        if entry is None:
            target.write(line)
            if line == START_OF_DATA:
                break
            continue
        name, kind, rest = entry.groups()
        if name == b"/":
            continue  # the folder itself is in the root filesystem
        if kind == b"L":
            rest = folder + b"/" + rest.lstrip(b"/")
        target.write(folder + b"/" + name.lstrip(b"/") + b" " + kind + b" " + rest)
    shutil.copyfileobj(source, target, 1 << 20)


main()
