"""The manifest's ``containers:`` → words for ``docker create`` (or ``podman create``, which takes the same)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from shiplap.core.manifest.device import ContainerSettings
from shiplap.rootfs.target.settings import Container, TargetRefused


def containers_of(definitions: Sequence[ContainerSettings], images: Iterable[tuple[str, str]]) -> tuple[Container, ...]:
    """The containers in the order in which they start: as written, but after what ``after:`` names.

    ``images``: (config digest, full reference) pairs of the store. Raises TargetRefused for a container of an image that is
    not in the store.
    """
    known = {reference: config for config, reference in images}
    return tuple(_container(one, known) for one in _in_order(definitions))


def _in_order(definitions: Sequence[ContainerSettings]) -> list[ContainerSettings]:
    """The manifest's checks have refused unknown names and circles."""
    left = list(definitions)
    order: list[ContainerSettings] = []
    while left:
        done = {one.name for one in order}
        following = next(one for one in left if done.issuperset(one.after))
        left.remove(following)
        order.append(following)
    return order


def _container(one: ContainerSettings, known: dict[str, str]) -> Container:
    reference = str(one.image)
    config = known.get(reference)
    if config is None:
        raise TargetRefused(
            f"container {one.name}: {reference} is not in this store", hint=f"it has {', '.join(sorted(known)) or 'no names'}"
        )
    options = tuple(_options(one))
    return Container(one.name, config, reference, options, args=one.args, wait_for=one.wait_for, after=one.after)


def _options(one: ContainerSettings) -> Iterator[str]:
    """Each option and its value as one word, so that no value can pass for an option."""
    single = {
        "entrypoint": one.entrypoint,
        "restart": one.restart,
        "network": one.network,
        "user": one.user,
        "env-file": one.env_file,
        "memory": one.memory_bytes,
        "cpus": one.cpus,
        "pids-limit": one.pids_limit,
    }
    if one.health is not None and one.health.cmd is not None:
        single |= {
            "health-cmd": one.health.cmd,
            "health-interval": one.health.interval,
            "health-timeout": one.health.timeout,
            "health-retries": one.health.retries,
            "health-start-period": one.health.start_period,
        }
    yield from (f"--{name}={value}" for name, value in single.items() if value is not None)
    several = {
        "publish": one.ports,
        "volume": one.volumes,
        "device": one.devices,
        "tmpfs": one.tmpfs,
        "cap-drop": one.cap_drop,
        "cap-add": one.cap_add,
        "security-opt": one.security_opt,
        "env": tuple(f"{name}={value}" for name, value in one.env),
        "label": tuple(f"{name}={value}" for name, value in one.labels),
    }
    for name, values in several.items():
        yield from (f"--{name}={value}" for value in values)
    if one.read_only:
        yield "--read-only"
    if one.health is not None and one.health.cmd is None:
        yield "--no-healthcheck"
