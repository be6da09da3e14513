"""The scripts of the device under BusyBox ash, with recorded stand-ins for uci, ubus' procd functions and the programs they call."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from openwrt.feedbuild import VERSION, made_build, made_feed
from openwrt.feedconfigs import config_of, golden_configs, manifest_data
from openwrt.feedmake import installed, make, make_tree
from requirement import require
from shiplap.adapters.openwrt import render

UCI = r"""
uci() {
    [ "$1" = -q ] && shift
    case $1 in
    get) [ -f "$STATE/$2" ] && cat "$STATE/$2" ;;
    set) echo "${2#*=}" >"$STATE/${2%%=*}" ;;
    add_list) echo "${2#*=}" >>"$STATE/${2%%=*}" ;;
    commit) echo "$2" >>"$STATE/committed" ;;
    esac
}
logger() { shift 2; echo "$*" >>"$STATE/log"; }
"""


def run_defaults(script: str, state: Path, before: dict[str, str]) -> dict[str, str]:
    """What stands in dockerd's UCI configuration afterwards; the script itself runs as uci-defaults run it."""
    require("shells")
    state.mkdir()
    for name, value in before.items():
        (state / f"dockerd.globals.{name}").write_text(value + "\n")
    text = script.replace("/etc/config/dockerd", str(state))  # a path that is there
    text = text.replace("[ -f ", "[ -e ")
    done = subprocess.run(
        ["busybox", "ash", "-c", f"STATE={state}\n{UCI}\n{text}"], capture_output=True, text=True, check=False, timeout=20
    )
    assert (done.returncode, done.stderr) == (0, "")
    return {path.name.removeprefix("dockerd.globals."): path.read_text().strip() for path in state.iterdir()}


@pytest.mark.parametrize("before", [{}, {"data_root": "/opt/docker/"}, {"data_root": "/var/lib/docker"}])
def test_the_first_boot_sets_the_data_root_where_nobody_chose_one(tmp_path: Path, before: dict[str, str]) -> None:
    script = render(config_of(prebuilt=True))["utils/gateway/files/gateway.defaults"]
    found = run_defaults(script, tmp_path / "uci", before)
    assert (found["data_root"], found["committed"], "log" in found) == ("/var/lib/docker", "dockerd", False)


def test_what_somebody_set_stays_and_is_told(tmp_path: Path) -> None:
    script = render(config_of(prebuilt=True))["utils/gateway/files/gateway.defaults"]
    found = run_defaults(script, tmp_path / "uci", {"data_root": "/mnt/mine"})
    assert (
        found["data_root"] == "/mnt/mine"
        and found["log"] == "dockerd.globals.data_root is /mnt/mine and stays; the store needs /var/lib/docker"
    )


def test_engine_config_becomes_uci(tmp_path: Path) -> None:
    script = render(golden_configs()["hostcommand"])["utils/lab-box/files/lab-box.defaults"]
    found = run_defaults(script, tmp_path / "uci", {"data_root": "/opt/docker/", "log_level": "warn"})
    del found["dockerd.globals"], found["committed"]
    assert found == {
        "data_root": "/mnt/data/docker", "dns": "192.0.2.1", "ip6tables": "1", "log_driver": "local", "log_level": "warn",
    }  # fmt: skip


def test_a_value_of_the_manifest_is_text_to_the_devices_shell(tmp_path: Path) -> None:
    odd = 'it\'s $(touch /nowhere/x) `id` "quoted" \\\\'
    engine = {"log-driver": odd, "dns": [odd]}
    script = render(config_of(manifest_data(**{"engine-config": engine}), prebuilt=True))["utils/gateway/files/gateway.defaults"]
    found = run_defaults(script, tmp_path / "uci", {})
    assert (found["log_driver"], found["dns"]) == (odd, odd)


PROCD = r"""
config_load() { :; }
config_get_bool() { eval "$1=$CONTAINERS"; }
procd_open_instance() { echo open; }
procd_set_param() { echo "param $*"; }
procd_close_instance() { echo close; }
"""


@pytest.mark.parametrize(("wanted", "lines"), [("1", 4), ("0", 0)])
def test_the_containers_are_a_service_that_can_be_switched_off(tmp_path: Path, wanted: str, lines: int) -> None:
    require("shells")
    folder = made_build(tmp_path)
    tree = make_tree(tmp_path / "tree", made_feed(folder), {"GATEWAY_CHECK_SHA256": "y"})
    assert make(tree, "gateway").returncode == 0
    script = installed(tree, "gateway", VERSION) / "etc/init.d/shiplap-xcontainers"
    assert script.read_text().startswith("#!/bin/sh /etc/rc.common\n\nUSE_PROCD=1\nSTART=99\n")
    words = f"CONTAINERS={wanted}\n{PROCD}\n. {script}\nstart_service"
    done = subprocess.run(["busybox", "ash", "-c", words], capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", lines)
    if lines:
        assert "param command /bin/sh -c /usr/sbin/shiplap-target load && /usr/sbin/shiplap-target start" in done.stdout


def test_a_stock_manifest_without_containers_renders() -> None:
    assert "utils/gateway/Makefile" in render(config_of(manifest_data(containers=None), prebuilt=True))
