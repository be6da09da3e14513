"""The real BitBake library (PyPI's ``bitbake-setup``: parser, fetchers, task runner) around a stand-in for OE-Core of a few lines.

A process of its own parses a recipe and runs its tasks, as an ordinary user and under pseudo where files have to belong to root. The
classes here have only the variables and tasks that the generated ones build upon; real ones run in ``oecheckout.py``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from commandline import COMMAND, IMPORT_ROOT

NOBODY = 65534

_BITBAKE_CONF = """\
TMPDIR ?= "${TOPDIR}/tmp"
DL_DIR ?= "${TOPDIR}/downloads"
PERSISTENT_DIR = "${TMPDIR}/cache"
CACHE = "${TMPDIR}/cache"
PN = "${@bb.parse.vars_from_file(d.getVar('FILE', False), d)[0] or 'defaultpkgname'}"
PV = "${@bb.parse.vars_from_file(d.getVar('FILE', False), d)[1] or '1.0'}"
BPN = "${PN}"
BP = "${BPN}-${PV}"
EXTENDPKGV = "${PV}"
WORKDIR = "${TMPDIR}/work/${PN}"
UNPACKDIR ?= "${WORKDIR}/sources"
T = "${WORKDIR}/temp"
D = "${WORKDIR}/image"
S = "${UNPACKDIR}/${BP}"
B = "${S}"
STAMP = "${TMPDIR}/stamps/${PN}"
STAMPCLEAN = "${STAMP}"
FILESPATH = "${THISDIR}/files"
THISDIR = "${@os.path.dirname(d.getVar('FILE', False))}"
MACHINE ?= "some-machine"
DISTRO_FEATURES ?= "systemd sysvinit usrmerge"
prefix = "/usr"
exec_prefix = "/usr"
sysconfdir = "/etc"
datadir = "/usr/share"
systemd_unitdir = "${@'/usr/lib/systemd' if 'usrmerge' in d.getVar('DISTRO_FEATURES').split() else '/lib/systemd'}"
systemd_system_unitdir = "${systemd_unitdir}/system"
PARALLEL_MAKE ?= "-j 2"
DEPLOY_DIR_IMAGE ?= "${TMPDIR}/deploy/images/${MACHINE}"
BB_BASEHASH_IGNORE_VARS = "TMPDIR FILE PATH THISDIR DL_DIR WORKDIR TOPDIR SOURCE_DATE_EPOCH HOME USER"
BB_STRICT_CHECKSUM = "1"
INHERIT ?= ""
BBINCLUDELOGS = "yes"
export PATH
include conf/settings.conf
"""
_LAYER_CONF = """\
BBPATH .= ":${LAYERDIR}"
BBFILE_COLLECTIONS += "core"
BBFILE_PATTERN_core := "^${LAYERDIR}/"
LAYERSERIES_COMPAT_core = "blacksail"
LAYERSERIES_CORENAMES = "blacksail"
addpylib ${LAYERDIR}/lib oe
"""
_CLASSES = {
    "base": """\
addtask fetch
do_fetch[dirs] = "${DL_DIR}"
python base_do_fetch () {
    urls = d.getVar("SRC_URI").split()
    bb.fetch2.Fetch(urls, d).download()
}
addtask unpack after do_fetch
do_unpack[cleandirs] = "${UNPACKDIR}"
python base_do_unpack () {
    bb.fetch2.Fetch(d.getVar("SRC_URI").split(), d).unpack(d.getVar("UNPACKDIR"))
}
addtask configure after do_unpack
do_configure[dirs] = "${B}"
base_do_configure () {
    :
}
addtask compile after do_configure
do_compile[dirs] = "${B}"
base_do_compile () {
    :
}
addtask install after do_compile
do_install[dirs] = "${B}"
do_install[cleandirs] = "${D}"
base_do_install () {
    :
}
addtask build after do_install
do_build () {
    :
}
EXPORT_FUNCTIONS do_fetch do_unpack do_configure do_compile do_install
""",
    "allarch": 'PACKAGE_ARCH = "all"\n',
    "python3native": "",
    "deploy": 'DEPLOYDIR = "${WORKDIR}/deploy-${PN}"\ndo_deploy[dirs] = "${B}"\ndo_deploy[cleandirs] = "${DEPLOYDIR}"\n',
    "core-image": """\
IMAGE_ROOTFS = "${WORKDIR}/rootfs"
IMGDEPLOYDIR = "${WORKDIR}/deploy-image"
IMAGE_NAME = "${PN}"
IMAGE_LINK_NAME = "${PN}"
CONVERSIONTYPES = "gz"
ROOTFS_POSTPROCESS_COMMAND = ""
IMAGE_QA_COMMANDS = ""
IMAGE_POSTPROCESS_COMMAND = ""
addtask rootfs
do_rootfs () {
    :
}
""",
    "python_hatchling": 'PYTHON_SITEPACKAGES_DIR = "/usr/lib/python3/site-packages"\n',
}
_UTILS = """\
class ImageQAFailed(Exception):
    def __init__(self, description, name=None, logfile=None):
        self.description = description

    def __str__(self):
        return self.description

def parallel_make_argument(d, fmt):
    return fmt % int(d.getVar("PARALLEL_MAKE").split()[-1])
"""
# What the process does: parse RECIPE, run steps in order, print one JSON object. A step is ["task", name], ["function", name],
# ["value", variable], ["python", expression of d] or ["hashes"].
_RUNNER = """\
import json, logging, os, sys, types
for name in ("hashserv", "hashserv.client", "prserv", "prserv.serv"):
    sys.modules[name] = types.ModuleType(name)  # servers, which the package does not have
import bb, bb.build, bb.cookerdata, bb.event, bb.fetch2, bb.parse, bb.utils
topdir, recipe, steps = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
said = []
class Collect(logging.Handler):
    def emit(self, record):
        said.append("%s: %s" % (record.levelname, record.getMessage()))
logging.getLogger("BitBake").addHandler(Collect())
logging.getLogger("BitBake").setLevel(logging.WARNING)
os.chdir(topdir)
configuration = bb.cookerdata.CookerConfiguration()
configuration.env = dict(os.environ)
answer = {"values": [], "error": None}
try:
    builder = bb.cookerdata.CookerDataBuilder(configuration, False)
    builder.parseBaseConfiguration()
    d = builder.parseRecipe(recipe, [], "")
    for kind, *words in steps:
        value = None
        if kind == "task":
            d.setVarFlag(words[0], "nostamp", "1")  # stamps are the server's
            value = bb.build.exec_task(recipe, words[0], d, False)
            if value:
                raise Exception("%s failed" % words[0])
        elif kind == "function":
            bb.utils.mkdirhier(d.getVar("T"))
            bb.build.exec_func(words[0], d, [d.getVar("T")])
        elif kind == "value":
            value = d.getVar(words[0])
        elif kind == "flag":
            value = d.getVarFlag(*words)
        elif kind == "python":
            value = d.expand("${@" + words[0] + "}")
        elif kind == "hashes":
            ignored = set(d.getVar("BB_BASEHASH_IGNORE_VARS").split())
            tasks, dependencies, cache = bb.data.generate_dependencies(d, ignored)
            _, hashes = bb.data.generate_dependency_hash(tasks, dependencies, cache, ignored, "recipe")
            value = {name.partition(":")[2]: one for name, one in hashes.items()}
        answer["values"].append(value)
except BaseException as error:
    answer["error"] = "%s: %s" % (type(error).__name__, error)
logs = []
for folder, _, names in os.walk(topdir):
    logs += [os.path.join(folder, name) for name in names if name.startswith("log.do_") and not os.path.islink(os.path.join(folder, name))]
answer["said"] = "\\n".join(said + [open(name, errors="replace").read() for name in sorted(logs)])
print("\\n" + json.dumps(answer))
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """``values``: of the steps; ``error``: None when all of them went well; ``said``: messages and the logs of tasks."""

    values: list[Any]
    error: str | None
    said: str


@dataclass(slots=True)
class StandIn:
    """A build folder in ``folder`` with ``layer``. Everything in it belongs to nobody when root runs the tests."""

    folder: Path
    layer: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        core, programs = self.folder / "core", self.folder / "bin"
        texts = {
            core / "conf/bitbake.conf": _BITBAKE_CONF,
            core / "conf/layer.conf": _LAYER_CONF,
            core / "lib/oe/__init__.py": 'BBIMPORTS = ["utils"]\n',
            core / "lib/oe/utils.py": _UTILS,
            self.folder / "runner.py": _RUNNER,
            self.folder / "conf/bblayers.conf": f'BBPATH = "${{TOPDIR}}"\nBBFILES ?= ""\nBBLAYERS = "{core} {self.layer}"\n',
            programs / "shiplap": f'#!/bin/sh\nPYTHONPATH={IMPORT_ROOT} exec {" ".join(COMMAND)} "$@"\n',
        } | {core / f"classes/{name}.bbclass": text for name, text in _CLASSES.items()}
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (programs / "shiplap").chmod(0o755)

    def run(
        self, recipe: str, *steps: Sequence[str], pseudo: bool = False, env: Mapping[str, str] | None = None, **settings: str
    ) -> Answer:
        """Parse the layer's ``recipe`` and take ``steps``; ``settings``: variables, stronger than those of the stand-in."""
        chosen = {**self.settings, **settings}
        (self.folder / "conf/settings.conf").write_text("".join(f'{key} = "{value}"\n' for key, value in chosen.items()))
        words = [
            sys.executable,
            "-B",
            str(self.folder / "runner.py"),
            str(self.folder),
            str(next(self.layer.rglob(recipe))),
            json.dumps(steps),
        ]
        environment = {
            "PATH": f"{self.folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(self.folder),
            "BBPATH": str(self.folder),
            "LC_ALL": "C.UTF-8",
            **(env or {}),
        }
        if pseudo:
            words = ["pseudo", *words]
            environment |= {"PSEUDO_PREFIX": "/usr", "PSEUDO_LOCALSTATEDIR": str(self.folder / "pseudo"), "PSEUDO_NOSYMLINKEXP": "1"}
        user: dict[str, Any] = {}
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", self.folder], check=True)
            user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=120, **user)
        last = done.stdout.rstrip().rpartition("\n")[2]
        assert last.startswith("{"), f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        answer = json.loads(last)
        return Answer(answer["values"], answer["error"], answer["said"] + done.stderr + done.stdout[: -len(last)])

    def work(self, recipe: str) -> Path:
        return self.folder / "tmp/work" / recipe

    def clean(self) -> None:
        """Everything but the downloads; pseudo's data base goes with the files that it knows."""
        for name in ("tmp", "pseudo"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
