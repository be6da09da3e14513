"""``shiplap doctor --kernel``: a kernel's configuration is found, held against a store's needs, and told."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from shiplap.core.errors import Refused
from shiplap.rootfs.kernelcheck import CONFIG_MAX_BYTES, KernelFinding, StoreNeeds, Weight, check_kernel, read_config, running_config
from shiplap.rootfs.kernelneeds import needs_of_store

RUNNING = "running"

_HEADINGS = {
    Weight.MISSING: "missing: this store cannot be used",
    Weight.LIMITS: "limits: something of it cannot be used",
    Weight.LOOK: "look at it: may forbid what containers do",
}


class KernelUnreadable(Refused):
    """The kernel's configuration cannot be read."""


@dataclass(frozen=True, slots=True)
class KernelReport:
    """``source``: the file that was read."""

    source: str
    needs: StoreNeeds
    findings: tuple[KernelFinding, ...]

    @property
    def is_usable(self) -> bool:
        return not any(one.weight is Weight.MISSING for one in self.findings)


def look_at_kernel(config: str, store: Path | None) -> KernelReport:
    """``config``: a file, or ``running``. Raises KernelUnreadable, KernelConfigInvalid and what reading ``store`` raises."""
    needs = StoreNeeds() if store is None else needs_of_store(store)
    path = _running() if config == RUNNING else Path(config)
    return KernelReport(str(path), needs, tuple(check_kernel(read_config(_bytes_of(path), str(path)), needs)))


def _running() -> Path:
    places = list(running_config(os.uname().release))
    for place in places:
        if os.access(place, os.R_OK):
            return Path(place)
    raise KernelUnreadable(
        f"the running kernel's configuration is in none of {', '.join(places)}", hint="modprobe configs, or name the .config of its build"
    )


def _bytes_of(path: Path) -> bytes:
    try:
        # A pipe would be waited for; nobody writes a configuration into one.
        if not path.is_file():
            problem = f"{path} is not a regular file" if path.exists() else f"there is no file {path}"
            raise KernelUnreadable(problem, hint=f"name the .config of the kernel's build, or `{RUNNING}`")
        with path.open("rb") as file:
            return file.read(CONFIG_MAX_BYTES + 1)
    except OSError as error:
        raise KernelUnreadable(f"cannot read {path}: {error.strerror}") from error


def kernel_data(report: KernelReport) -> dict[str, object]:
    """For ``--json``."""
    return {
        "source": report.source,
        "usable": report.is_usable,
        "needs": {name.replace("_", "-"): value for name, value in asdict(report.needs).items()},
        "findings": [
            {"weight": one.weight.value, "symbol": f"CONFIG_{one.symbol}", "state": one.state, "why": one.why, "remedy": one.remedy}
            for one in report.findings
        ],
    }


def kernel_text(report: KernelReport) -> str:
    """For people."""
    lines = [f"Kernel {report.source}, for {_described(report.needs)}:"]
    for weight, heading in _HEADINGS.items():
        found = [one for one in report.findings if one.weight is weight]
        if found:
            lines.append(f"  {heading}")
        for one in found:
            lines += [f"    CONFIG_{one.symbol}: {one.why}", f"      {one.remedy}"]
    lines.append("This kernel has what the store needs." if report.is_usable else "This kernel lacks what the store needs.")
    return "\n".join(lines)


def _described(needs: StoreNeeds) -> str:
    image = "an archive" if needs.filesystem == "none" else f"a store as {needs.filesystem} ({needs.compression}) in a {needs.placement}"
    seal = "sealed and signed" if needs.signed else "sealed" if needs.sealed else "not sealed"
    return f"{image}, {seal}, data-root {needs.persistence}, {needs.engine}"
