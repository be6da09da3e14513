"""Several blobs at once."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from shiplap.core.progress import Progress
from shiplap.core.registry.client import RegistryClient

PARALLEL = 4
# How long threads that were told to stop may take before they are left behind; they die with the process.
_FAREWELL_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Wanted:
    """A blob to bring in; ``label`` names it to whoever watches: ``layer 3/7 of app:1``."""

    digest: str
    size_bytes: int
    label: str


def download(client: RegistryClient, wanted: Iterable[Wanted], progress: Progress, mirrored: Callable[[Wanted], bool]) -> None:
    """Bring every blob into the client's cache, four at a time. Raises what :meth:`RegistryClient.blob` raises.

    ``mirrored``: tries to bring a blob in from elsewhere first, and says whether it did.

    The first failure, and an interruption, cuts the other transfers; what has come of them stays for the next time.
    """
    waiting: queue.SimpleQueue[Wanted] = queue.SimpleQueue()
    count = 0
    for one in {one.digest: one for one in wanted}.values():
        waiting.put(one)
        count += 1
    done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        while True:
            try:
                one = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                if not mirrored(one):
                    with progress.task(one.label, one.size_bytes) as task:
                        client.blob(one.digest, one.size_bytes, task.advance)
            except BaseException as error:  # noqa: BLE001 - it is raised again where somebody waits for it
                done.put(error)
                return
            done.put(None)

    threads = [threading.Thread(target=work, name=f"blob-{number}", daemon=True) for number in range(min(PARALLEL, count))]
    try:
        for thread in threads:
            thread.start()
        for _ in range(count):
            error = done.get()
            if error is not None:
                raise error
    except BaseException:
        client.abort()
        raise
    finally:
        deadline = time.monotonic() + _FAREWELL_SECONDS
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0, deadline - time.monotonic()))
