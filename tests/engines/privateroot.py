"""A private root: mount and process namespaces in which an engine runs and leaves nothing behind.

Process 1 of the namespaces is ``private_root.sh``; when it is killed the kernel ends every process inside, and with
the last of them go all mounts and their loop devices. Nothing is searched by name: one process id is all there is to undo.
"""

from __future__ import annotations

import itertools
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

HERE = Path(__file__).resolve().parent
SEARCH_PATH = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
SETUP_SECONDS = 30.0
CGROUPS = Path("/sys/fs/cgroup")

_serial = itertools.count()


class PrivateRootError(Exception):
    """The namespaces could not be set up."""


class PrivateRoot:
    """``with PrivateRoot(workdir) as root: root.run(["mount"])``.

    ``workdir`` and the temporary directory are the host's own, at the same paths, writable; everything else shows ``base``
    through an overlay whose changes vanish. ``mounts``: (SquashFS file, mount point) pairs, loop-mounted read-only.
    ``tmpfs``: mount points of fresh tmpfs.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        base: Path = Path("/"),
        mounts: Sequence[tuple[Path, str]] = (),
        binds: Sequence[Path] = (),
        tmpfs: Sequence[str] = (),
    ) -> None:
        self.workdir = workdir.resolve()
        self.base = base
        self.cgroup = f"shiplap-{os.getpid()}-{next(_serial)}"
        self._mounts = tuple(mounts)
        self._binds = tuple(dict.fromkeys((Path(tempfile.gettempdir()).resolve(), self.workdir, *(one.resolve() for one in binds))))
        self._tmpfs = tuple(tmpfs)
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch: Path | None = None
        self.pid = 0

    def __enter__(self) -> Self:
        self.workdir.mkdir(parents=True, exist_ok=True)
        self._scratch = Path(tempfile.mkdtemp(prefix="private-root-", dir=self.workdir))
        extra: list[str] = []
        for bind in self._binds:
            extra += ["--bind", str(bind)]
        for place in self._tmpfs:
            extra += ["--tmpfs", place]
        for image, place in self._mounts:
            extra += ["--image", str(image), place]
        try:
            self._process = subprocess.Popen(
                # pdeathsig: when the test run itself is killed, the namespaces go with it.
                ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "unchanged",
                 "sh", str(HERE / "private_root.sh"), str(self.base), str(self._scratch), *extra],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
            )  # fmt: skip
            self._await_ready(self._process)
            self.pid = _only_child(self._process.pid)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None and process.stderr is not None
        readable, _, _ = select.select([process.stdout], [], [], SETUP_SECONDS)
        said = process.stdout.readline() if readable else b""
        if said != b"ready\n":
            process.kill()
            _, wrong = process.communicate()
            raise PrivateRootError(f"no private root: {wrong.decode(errors='replace').strip() or 'timeout'}")

    def argv(self, argv: Sequence[str | os.PathLike[str]]) -> list[str]:
        """The command that runs ``argv`` inside."""
        return ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--root", "--wd", "--", *(os.fspath(one) for one in argv)]

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        input: bytes | None = None,
        timeout: float = 120.0,
        check: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program inside. A failure raises with everything it wrote, unless ``check`` is off."""
        done = subprocess.run(self.argv(argv), input=input, capture_output=True, timeout=timeout, env=environment(env), check=False)
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(os.fspath(one) for one in argv)} gave {done.returncode}:\n"
                + (done.stdout[-4000:] + done.stderr[-4000:]).decode(errors="replace")
            )
        return done

    def spawn(self, argv: Sequence[str | os.PathLike[str]], log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a program inside that writes to ``log``."""
        with log.open("ab") as file:
            return subprocess.Popen(self.argv(argv), stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment(env))

    def close(self) -> None:
        """End every process inside, then remove what lies outside the namespaces: control groups and the scratch directory."""
        if self._process is not None:
            if self.pid and not CGROUPS.is_dir():
                self._remove_hidden_cgroups()
            self._process.kill()
            self._process.wait()
            if self.pid:
                _gone(self.pid)
            for stream in (self._process.stdout, self._process.stderr):
                if stream is not None:
                    stream.close()
            self._process = None
        remove_cgroups(self.cgroup)
        if self._scratch is not None:
            # Its tmpfs was mounted in the namespace only; here it is an empty directory.
            self._scratch.rmdir()
            self._scratch = None

    def _remove_hidden_cgroups(self) -> None:
        """In a bare chroot the control groups can be seen from inside only: end what is in them first."""
        script = """
        kill -KILL -1
        for try in 1 2 3 4 5 6 7 8 9; do
            [ "$(find /sys/fs/cgroup -type d -name "$1")" ] || break
            find /sys/fs/cgroup -depth -type d -path "*/$1*" -exec rmdir {} + 2>/dev/null
            sleep 0.1
        done
        """
        try:
            self.run(["sh", "-c", script, "sh", self.cgroup], check=False, timeout=15)
        except subprocess.TimeoutExpired:
            pass  # the namespaces end all the same


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What programs inside get: nothing of the caller's, above all no DOCKER_HOST and no proxies."""
    return {"PATH": SEARCH_PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", "TMPDIR": "/tmp"} | dict(extra or {})


def _only_child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _gone(pid: int, seconds: float = 20.0) -> None:
    """Wait until the kernel has ended process ``pid``, which is process 1 of its namespace and so the last to go."""
    deadline = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)


def remove_cgroups(name: str, seconds: float = 5.0) -> None:
    """Remove control group ``name`` of every hierarchy; its processes are gone, the kernel may need a moment to notice."""
    for found in [CGROUPS / name, *sorted(CGROUPS.glob(f"*/{name}"))]:
        deadline = time.monotonic() + seconds
        while found.is_dir():
            for directory, _, _ in os.walk(found, topdown=False):
                try:
                    os.rmdir(directory)
                except OSError:
                    pass
            if time.monotonic() > deadline:
                break
            time.sleep(0.02 if found.is_dir() else 0)


def tool(name: str) -> str | None:
    """Absolute path of a program of the host, looked up where Debian's packages put it."""
    return shutil.which(name, path=SEARCH_PATH)
