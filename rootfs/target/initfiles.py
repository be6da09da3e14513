"""Files for the init systems. Each orders the same three steps: seed before the engine, load and start after it."""

from __future__ import annotations

from shiplap.rootfs.target.conf import DEFINITION_LABEL
from shiplap.rootfs.target.settings import TargetSettings

Files = dict[str, tuple[int, str]]
"""Path in the root file system → (mode, text)."""

_PROGRAM = "/usr/sbin/shiplap-target"
_ENGINE_UNITS = {
    "docker": ("docker.service", "docker.socket"),
    "podman": (
        "podman.service", "podman.socket", "podman-auto-update.service", "podman-clean-transient.service", "podman-kube@.service",
        "podman-restart.service",
    ),
}  # fmt: skip


def init_files(settings: TargetSettings) -> Files:
    """For every init system of the device."""
    files: Files = {}
    for name in settings.init:
        files |= {"systemd": _systemd, "sysv": _sysv, "procd": _procd}[name](settings)
    return files


def _systemd(settings: TargetSettings) -> Files:
    units = _ENGINE_UNITS[settings.engine]
    folder = "usr/lib/systemd/system"
    volumes = f" {settings.data_root.volumes_path}" if settings.data_root.volumes_path else ""
    # A volatile data-root is mounted by the kit; only its parent has to be there before.
    data_root = (
        settings.data_root.path if settings.data_root.persistence == "persistent" else settings.data_root.path.rpartition("/")[0] or "/"
    )
    store = f"""\
[Unit]
Description=Container store of this firmware
Documentation=file:/etc/shiplap/store.conf
RequiresMountsFor={settings.store_path} {data_root}{volumes}
# Sockets are opened before basic.target, which the default dependencies would wait for.
DefaultDependencies=no
Requires=sysinit.target
After=sysinit.target local-fs.target
Conflicts=shutdown.target
Before={" ".join(unit for unit in units if "@" not in unit)} shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={_PROGRAM} seed
"""
    start = f"""\
[Unit]
Description=Containers of this firmware
Requires=shiplap-store.service{" docker.service" if settings.engine == "docker" else ""}
After=shiplap-store.service{" docker.service" if settings.engine == "docker" else ""}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={_PROGRAM} load
ExecStart={_PROGRAM} start
TimeoutStartSec=infinity

[Install]
WantedBy=multi-user.target
"""
    # Required by the engine's own units, so that nobody can start it without the store.
    needs = "[Unit]\nRequires=shiplap-store.service\nAfter=shiplap-store.service\n"
    files: Files = {
        f"{folder}/shiplap-store.service": (0o644, store),
        f"{folder}/shiplap-containers.service": (0o644, start),
    }
    for unit in units:
        files[f"{folder}/{unit}.d/10-shiplap.conf"] = (0o644, needs)
    if settings.engine == "podman":
        # What it starts again shall not be an earlier firmware's definition.
        text = needs.replace("After=shiplap-store.service", "After=shiplap-store.service shiplap-containers.service")
        files[f"{folder}/podman-restart.service.d/10-shiplap.conf"] = (0o644, text)
    return files


def systemd_links(settings: TargetSettings) -> dict[str, str]:
    """Symbolic links that enable what has to run: path → target."""
    if "systemd" not in settings.init:
        return {}
    return {"usr/lib/systemd/system/multi-user.target.wants/shiplap-containers.service": "../shiplap-containers.service"}


def procd_links(settings: TargetSettings) -> dict[str, str]:
    """Links that enable the scripts: path → target. A firmware has no package installation that would make them."""
    if "procd" not in settings.init:
        return {}
    return {
        f"etc/rc.d/S{_PROCD_STORE_START}shiplap-store": "../init.d/shiplap-store",
        "etc/rc.d/S99shiplap-xcontainers": "../init.d/shiplap-xcontainers",
    }


def _sysv(settings: TargetSettings) -> Files:
    """Buildroot's numbering: the engine is S60dockerd."""

    docker = settings.engine == "docker"

    def script(verbs: str, what: str, needs: str = "", header: str = "") -> str:
        return f"""\
#!/bin/sh
### BEGIN INIT INFO
# Provides:          {what}
# Required-Start:    $local_fs{needs}
# Required-Stop:
{header}# Default-Start:     2 3 4 5
# Default-Stop:
# Short-Description: {what}
### END INIT INFO

case ${{1:-start}} in
start)
    {" && ".join(f"{_PROGRAM} {verb}" for verb in verbs.split())}
    ;;
stop | restart | reload) ;;
status) {_PROGRAM} status ;;
*) echo "usage: $0 start|status" >&2; exit 2 ;;
esac
"""

    return {
        "etc/init.d/S59shiplap-store": (0o755, script("seed", "shiplap-store", header="# X-Start-Before:    docker\n" if docker else "")),
        "etc/init.d/S61shiplap-containers": (
            0o755,
            script("load start", "shiplap-containers", needs=" docker" if docker else " shiplap-store"),
        ),
    }


_ENGINE_PROCESSES = {"docker": "dockerd", "podman": "podman conmon"}
_PROCD_STORE_START = 21  # after the mounts (11) and before dockerd, which had 25 and has 99


def _procd(settings: TargetSettings) -> Files:
    """At 99 scripts start in the order of their names: dockerd, then shiplap-xcontainers."""
    # It is stopped when the package goes or is replaced, with a stopping engine still at work.
    store = f"""\
#!/bin/sh /etc/rc.common

USE_PROCD=1
START={_PROCD_STORE_START}

start_service() {{
	{_PROGRAM} seed
}}

stop_service() {{
	local tries=20

	while pidof {_ENGINE_PROCESSES[settings.engine]} >/dev/null; do
		[ "$tries" -gt 0 ] || {{
			echo "shiplap-store: the engine runs and has the store open, stop it first" >&2
			return 1
		}}
		tries=$((tries - 1))
		sleep 1
	done
	{_PROGRAM} unmount
}}
"""
    containers = f"""\
#!/bin/sh /etc/rc.common

USE_PROCD=1
START=99

start_service() {{
	local containers

	config_load shiplap
	config_get_bool containers globals containers 1
	[ "$containers" -eq 1 ] || return 0

	procd_open_instance
	procd_set_param command /bin/sh -c '{_PROGRAM} load && {_PROGRAM} start'
	procd_set_param stderr 1
	procd_close_instance
}}

stop_service() {{
	local container

	{settings.engine} ps -q --filter label={DEFINITION_LABEL} | while read -r container; do
		{settings.engine} stop "$container" </dev/null
	done
}}
"""
    files: Files = {"etc/init.d/shiplap-store": (0o755, store), "etc/init.d/shiplap-xcontainers": (0o755, containers)}
    if settings.engine != "docker":
        return files
    # OpenWrt's dockerd takes its configuration from UCI. Its own default, /opt/docker/, lies on an overlay; what somebody set stays.
    uci = f"""\
#!/bin/sh
[ -f /etc/config/dockerd ] || exit 0
case $(uci -q get dockerd.globals.data_root) in
'' | /opt/docker | /opt/docker/)
	uci -q set dockerd.globals.data_root='{settings.data_root.path}'
	uci -q commit dockerd
	;;
esac
exit 0
"""
    return files | {"etc/uci-defaults/50-shiplap": (0o755, uci)}
