"""Where the archive code of two engines' graph drivers differs, as far as it shows in a layer's tree.

moby's ``pkg/archive`` and containers/storage's have one origin. What is not here is the same in both; every
difference was seen with real engines (Docker 20.10 to 28, Podman 4.3 to 5.8; tests/engines/test_truth_*.py).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Dialect:
    """One engine's habits.

    ``root_mode``: of a base layer's root directory. ``applies_root_entry``: an entry ``/`` changes the root directory
    (``./`` never does). ``leaves_owner``: an owner that is there already is not set again, so that a hard link entry
    keeps its file's capability (idtools.SafeLchown). ``ignored_xattrs``: never unpacked.
    ``refuses_user_xattrs``: on symbolic links, devices and fifos, where the kernel takes none, they end the unpacking.
    """

    root_mode: int
    applies_root_entry: bool = False
    leaves_owner: bool = False
    ignored_xattrs: frozenset[bytes] = frozenset()
    refuses_user_xattrs: bool = False


MOBY = Dialect(root_mode=0o755)
CONTAINERS_STORAGE = Dialect(
    root_mode=0o555,
    applies_root_entry=True,
    leaves_owner=True,
    ignored_xattrs=frozenset([b"security.selinux"]),
    refuses_user_xattrs=True,
)
