"""A Compose file describes the containers: what is read means what Compose means, everything else is named."""

from __future__ import annotations

import json
import random
import shlex
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from shiplap.core.manifest import Manifest, ManifestError, Overrides, load_manifest, parse_manifest, resolve, to_data
from shiplap.core.manifest.composefile import ComposeFile, parse_compose
from shiplap.core.manifest.composewords import WordsUnclear, shell_words
from shiplap.core.manifest.device import ContainerSettings
from shiplap.core.manifest.problems import Problem

Data = dict[str, Any]
MANIFEST: Data = {
    "version": 1,
    "images": [{"ref": "app:1"}, {"ref": "db:1"}],
    "data-root": {"persistence": "persistent"},
    "compose": "compose.yaml",
}


def described(folder: Path, file: Data | str, **keys: Any) -> Manifest:
    folder.mkdir(exist_ok=True)
    text = file if isinstance(file, str) else yaml.safe_dump(file, sort_keys=False)
    (folder / "compose.yaml").write_text(text)
    (folder / "shiplap.yaml").write_text(json.dumps(MANIFEST | keys))
    return load_manifest(folder / "shiplap.yaml")


def containers(folder: Path, file: Data | str, **keys: Any) -> dict[str, ContainerSettings]:
    return {one.name: one for one in described(folder, file, **keys).device.containers}


def refused(folder: Path, file: Data | str, **keys: Any) -> list[Problem]:
    with pytest.raises(ManifestError) as caught:
        described(folder, file, **keys)
    return list(caught.value.problems)


def service(**keys: Any) -> Data:
    return {"services": {"app": {"image": "app:1"} | keys}, "volumes": {"data": None, "log": {"name": "applog", "driver": "local"}}}


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({}, {}),
        ({"container_name": "front"}, {"name": "front"}),
        ({"command": "serve --name 'a b' \"c d\" e''f"}, {"args": ("serve", "--name", "a b", "c d", "ef")}),
        ({"command": ["a b", "", "c;d"]}, {"args": ("a b", "", "c;d")}),
        ({"command": None, "entrypoint": None}, {"args": (), "entrypoint": None}),
        ({"entrypoint": "/bin/sh -c", "command": ["x"]}, {"entrypoint": "/bin/sh", "args": ("-c", "x")}),
        ({"entrypoint": ["/bin/serve"], "command": []}, {"entrypoint": "/bin/serve", "args": ()}),
        ({"environment": {"B": 1, "A": "x y", "C": True, "D": 0.5}}, {"env": (("A", "x y"), ("B", "1"), ("C", "true"), ("D", "0.5"))}),
        ({"environment": ["B=1=2", "A=$$HOME $$$$", "E="]}, {"env": (("A", "$HOME $$"), ("B", "1=2"), ("E", ""))}),
        ({"env_file": "/data/app.env"}, {"env_file": "/data/app.env"}),
        ({"env_file": [{"path": "/data/app.env", "required": True}]}, {"env_file": "/data/app.env"}),
        ({"volumes": ["data:/data", "/etc/app:/etc/app:ro", "/anonymous", "log:/log:rw,z"]},
         {"volumes": ("data:/data", "/etc/app:/etc/app:ro", "/anonymous", "applog:/log:rw,z")}),
        ({"volumes": [{"type": "volume", "source": "log", "target": "/log", "read_only": True, "volume": {"nocopy": True}},
                      {"type": "volume", "target": "/x"},
                      {"type": "bind", "source": "/dev/log", "target": "/dev/log",
                       "bind": {"propagation": "rslave", "create_host_path": True}}]},
         {"volumes": ("applog:/log:ro,nocopy", "/x", "/dev/log:/dev/log:rslave")}),
        ({"volumes": [{"type": "tmpfs", "target": "/cache", "tmpfs": {"size": "16m", "mode": 0o1777}}], "tmpfs": "/run"},
         {"tmpfs": ("/run", "/cache:size=16777216,mode=1777"), "volumes": ()}),
        ({"tmpfs": ["/run:size=1m", "/tmp"]}, {"tmpfs": ("/run:size=1m", "/tmp")}),
        ({"ports": ["8080:80", 443, "127.0.0.1:53:53/udp", "[::1]::80", "7000-7002:7000-7002/tcp"]},
         {"ports": ("8080:80", "443", "127.0.0.1:53:53/udp", "[::1]::80", "7000-7002:7000-7002/tcp")}),
        ({"ports": [{"target": 80, "published": "8080", "host_ip": "::1"}, {"target": 53, "protocol": "udp"},
                    {"target": 1, "host_ip": "127.0.0.1"}]},
         {"ports": ("[::1]:8080:80/tcp", "53/udp", "127.0.0.1::1/tcp")}),
        ({"devices": ["/dev/ttyS0", "/dev/a:/dev/b:rw", {"source": "/dev/c", "permissions": "r"}]},
         {"devices": ("/dev/ttyS0", "/dev/a:/dev/b:rw", "/dev/c:/dev/c:r")}),
        ({"network_mode": "none"}, {"network": "none"}),
        ({"restart": "no"}, {"restart": "no"}),
        ({"restart": "unless-stopped"}, {"restart": "unless-stopped"}),
        ({"user": 999}, {"user": "999"}),
        ({"user": "app:app"}, {"user": "app:app"}),
        ({"cap_add": ["NET_ADMIN"], "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"], "read_only": True},
         {"cap_add": ("NET_ADMIN",), "cap_drop": ("ALL",), "security_opt": ("no-new-privileges:true",), "read_only": True}),
        ({"mem_limit": "64m", "cpus": "0.50", "pids_limit": 10}, {"memory_bytes": 64 << 20, "cpus": "0.5", "pids_limit": 10}),
        ({"mem_limit": "1GB"}, {"memory_bytes": 1 << 30}),
        ({"mem_limit": 1000, "cpus": 2}, {"memory_bytes": 1000, "cpus": "2"}),
        ({"labels": {"org.a": 1, "b": None}}, {"labels": (("b", ""), ("org.a", "1"))}),
        ({"labels": ["a=b=c", "d"]}, {"labels": (("a", "b=c"), ("d", ""))}),
        ({"x-ours": {"build": 1}}, {}),
    ],
)  # fmt: skip
def test_what_is_read_means_what_compose_means(keys: Data, wanted: Data, tmp_path: Path) -> None:
    read = containers(tmp_path, service(**keys))
    one = read[wanted.get("name", "app")]
    assert {name: getattr(one, name) for name in wanted} == wanted
    untouched = {"name", "image", *wanted}
    fresh = ContainerSettings("app", one.image)
    for name in ContainerSettings.__dataclass_fields__:
        assert name in untouched or getattr(one, name) == getattr(fresh, name), name


@pytest.mark.parametrize(
    ("check", "wanted"),
    [
        ({"test": "curl -f localhost || exit 1", "interval": "1m30s", "retries": 3}, ("curl -f localhost || exit 1", "1m30s", 3)),
        ({"test": ["CMD-SHELL", "a | b"]}, ("a | b", None, None)),
        ({"test": ["CMD", "ping", "it's", "$$x"]}, ("ping 'it'\"'\"'s' '$x'", None, None)),
        ({"test": ["NONE"]}, (None, None, None)),
        ({"disable": True}, (None, None, None)),
        ({"test": "true", "disable": False}, ("true", None, None)),
    ],
)
def test_every_form_of_a_health_check(check: Data, wanted: tuple[str | None, str | None, int | None], tmp_path: Path) -> None:
    health = containers(tmp_path, service(healthcheck=check))["app"].health
    assert health is not None
    assert (health.cmd, health.interval, health.retries) == wanted


def test_the_order_comes_from_depends_on_by_the_names_that_containers_have(tmp_path: Path) -> None:
    for written in (["db"], {"db": {"condition": "service_started"}}, {"db": {}}):
        read = containers(
            tmp_path,
            {
                "services": {
                    "app": {"image": "app:1", "network_mode": "none", "depends_on": written},
                    "db": {"image": "db:1", "container_name": "the-db", "network_mode": "none"},
                }
            },
        )
        assert read["app"].after == ("the-db",)
        assert list(read) == ["app", "the-db"]


@pytest.mark.parametrize(
    ("keys", "path", "message"),
    [
        ({"build": "."}, "services.app.build", "a store has finished images"),
        ({"comand": "x"}, "services.app.comand", "did you mean `command`?"),
        ({"privileged": True}, "services.app.privileged", "`cap_add`"),
        ({"deploy": {}}, "services.app.deploy", "`mem_limit`"),
        ({"networks": ["a"]}, "services.app.networks", "`network_mode`"),
        ({"image": "other:1"}, "services.app.image", "none of the manifest's `images`"),
        ({"image": "app:${TAG}"}, "services.app.image", "variables are not replaced"),
        ({"image": "app:$TAG"}, "services.app.image", "variables are not replaced"),
        ({"command": "a $$$b"}, "services.app.command", "variables are not replaced"),
        ({"command": "a; b"}, "services.app.command", "unquoted `;`"),
        ({"command": "a\\ b"}, "services.app.command", "backslash"),
        ({"command": "'a"}, "services.app.command", "without its end"),
        ({"command": []}, "services.app.command", "is empty"),
        ({"entrypoint": ""}, "services.app.entrypoint", "is empty"),
        ({"entrypoint": [""]}, "services.app.entrypoint", "is empty"),
        ({"entrypoint": "[x"}, "services.app.entrypoint", "write one program"),
        ({"environment": ["A"]}, "services.app.environment[0]", "has no value"),
        ({"environment": {"A": None}}, "services.app.environment.A", "has no value"),
        ({"environment": ["A=1", "A=2"]}, "services.app.environment[1]", "set twice"),
        ({"environment": ["=1"]}, "services.app.environment[0]", "no name"),
        ({"environment": {"A B": 1}}, "services.app.environment", "no name of an environment variable"),
        ({"env_file": ".env"}, "services.app.env_file", "absolute path"),
        ({"env_file": ["/a", "/b"]}, "services.app.env_file", "more than 1"),
        ({"env_file": [{"path": "/a", "required": False}]}, "services.app.env_file[0].required", "must be True"),
        ({"volumes": ["./data:/data"]}, "services.app.volumes[0]", "no project folder"),
        ({"volumes": ["~/data:/data"]}, "services.app.volumes[0]", "no home"),
        ({"volumes": ["other:/data"]}, "services.app.volumes[0]", "there is no volume `other`"),
        ({"volumes": ["data:relative"]}, "services.app.volumes[0]", "absolute path"),
        ({"volumes": ["data:/x:cached"]}, "services.app.volumes[0]", "ro|rw"),
        ({"volumes": ["data:/x:ro:z"]}, "services.app.volumes[0]", "[SOURCE:]TARGET"),
        ({"volumes": [{"type": "bind", "target": "/x"}]}, "services.app.volumes[0]", "has a `source`"),
        ({"volumes": [{"type": "volume", "source": "/x", "target": "/x"}]}, "services.app.volumes[0]", "is a folder"),
        ({"volumes": [{"type": "bind", "source": "data", "target": "/x"}]}, "services.app.volumes[0]", "is a volume"),
        ({"volumes": [{"type": "volume", "target": "/x", "read_only": True}]}, "services.app.volumes[0]", "without a name"),
        ({"volumes": [{"type": "tmpfs", "source": "data", "target": "/x"}]}, "services.app.volumes[0]", "no source"),
        ({"volumes": [{"type": "npipe", "target": "/x"}]}, "services.app.volumes[0].type", "not one of"),
        ({"volumes": [{"type": "bind", "source": "/a", "target": "/x", "bind": {"create_host_path": False}}]},
         "services.app.volumes[0].bind.create_host_path", "must be True"),
        ({"ports": ["0:80"]}, "services.app.ports", "1 to 65535"),
        ({"ports": ["80-82:90-91"]}, "services.app.ports", "two ranges"),
        ({"ports": ["127.0.0.1:80"]}, "services.app.ports", "write a port"),
        ({"ports": ["999.0.0.1:80:80"]}, "services.app.ports", "IP address"),
        ({"ports": ["80"], "network_mode": "host"}, "services.app.ports", "from a bridge"),
        ({"devices": ["vendor.com/gpu=all"]}, "services.app.devices[0]", "/dev/SOURCE"),
        ({"network_mode": "service:db"}, "services.app.network_mode", "not one of none, host, bridge"),
        ({"restart": "on-failure:3"}, "services.app.restart", "not one of"),
        ({"restart": False}, "services.app.restart", "must be text"),
        ({"healthcheck": {"interval": "1s"}}, "services.app.healthcheck", "needs a `test`"),
        ({"healthcheck": {"test": ["curl", "x"]}}, "services.app.healthcheck.test", "needs a `test`"),
        ({"healthcheck": {"test": ["CMD"]}}, "services.app.healthcheck.test", "needs a `test`"),
        ({"healthcheck": {"test": ["NONE"], "retries": 1}}, "services.app.healthcheck", "leave the rest out"),
        ({"healthcheck": {"test": "x", "interval": "soon"}}, "services.app.healthcheck", "write a time"),
        ({"healthcheck": {"test": "x", "start_interval": "1s"}}, "services.app.healthcheck.start_interval", "unknown key"),
        ({"depends_on": ["nobody"]}, "services.app.depends_on", "no service `nobody`"),
        ({"depends_on": ["app"]}, "services.app.depends_on", "wait for each other"),
        ({"depends_on": {"app": {"condition": "service_healthy"}}}, "services.app.depends_on.app.condition", "do"),
        ({"mem_limit": "64 MiB"}, "services.app.mem_limit", "whole number"),
        ({"mem_limit": "1.5g"}, "services.app.mem_limit", "whole number"),
        ({"cpus": "half"}, "services.app.cpus", "processors"),
        ({"pids_limit": -1}, "services.app.pids_limit", "less than 1"),
        ({"labels": {"io.shiplap.definition": "x"}}, "services.app.labels", "the target kit's"),
        ({"container_name": "-rf"}, "services.app.container_name", "at least two"),
    ],
)  # fmt: skip
def test_anything_else_is_one_clear_problem_with_its_place(keys: Data, path: str, message: str, tmp_path: Path) -> None:
    problems = refused(tmp_path, service(**keys))
    assert [problem.path for problem in problems] == [path]
    assert message in problems[0].message
    assert problems[0].file == str(tmp_path / "compose.yaml")
    line = (tmp_path / "compose.yaml").read_text().splitlines()[problems[0].line - 1]
    assert problems[0].line > 1 and line.strip()


@pytest.mark.parametrize(
    ("compose", "path", "message"),
    [
        ("", "", "is empty"),
        ("services: {}", "services", "has no service"),
        ("services: []", "services", "must be a mapping"),
        ("[]", "", "must be a mapping"),
        ("services: {app: {}}", "services.app.image", "is missing"),
        ("services: {app: {image: 'app:1'}, db: {image: 'db:1', network_mode: none}}", "services.app", "say `network_mode`"),
        ("services: {app: {image: 'app:1'}}\nnetworks: {a: }", "networks", "`network_mode`"),
        ("services: {app: {image: 'app:1'}}\nsecrets: {a: }", "secrets", "mount a file"),
        ("services: {app: {image: 'app:1'}}\nservice: {}", "service", "did you mean `services`?"),
        ("services: {app: {image: 'app:1', volumes: ['v:/v']}}\nvolumes: {v: {external: true}}", "volumes.v.external", "unknown key"),
        ("services: {app: {image: 'app:1', restart: no}}", "", "YAML 1.1"),
        ("services: {app: {image: 'app:1', ports: [22:22]}}", "", "quote it"),
        ("services: {app: {image: 'app:1', <<: {a: b}}}", "", "merge keys"),
        ("services: {app: {image: 'app:1'}}\n---\nservices: {}", "", "second YAML document"),
        ("services: {app: &a {image: 'app:1', x-a: *a}}", "", "names no earlier"),
        ("services:\n\tapp: 1", "", "spaces only"),
        ("services: {a1: {image: 'app:1', container_name: app, network_mode: none}, app: {image: 'app:1', network_mode: none}}",
         "services.app.container_name", "is called `app` already"),
    ],
)  # fmt: skip
def test_a_file_that_is_none_of_ours(compose: str, path: str, message: str, tmp_path: Path) -> None:
    problems = refused(tmp_path, compose)
    assert [problem.path for problem in problems] == [path]
    assert message in problems[0].message


def test_all_problems_of_both_files_come_at_once_each_with_file_line_and_column(tmp_path: Path) -> None:
    compose = "services:\n  app:\n    image: app:1\n    build: .\n    command: a | b\n    ports: ['80:80', '0:1']\n"
    with pytest.raises(ManifestError) as caught:
        described(tmp_path, compose, epoch="soon", placement="partition", outputs=["squashfs"])
    shown = str(caught.value).replace(str(tmp_path) + "/", "")
    # What is said of the translated containers needs a translation first.
    assert shown.splitlines() == [
        "shiplap.yaml has 4 problems",
        "  shiplap.yaml:1:143: epoch: must be a whole number, not `soon`",
        "  shiplap.yaml:1:164: placement: a store partition is found by its root hash: add `verity` to `outputs`",
        "  compose.yaml:4:5: services.app.build: a store has finished images: name one in `image`, and list it in the manifest's `images`",
        "  compose.yaml:5:14: services.app.command: has an unquoted `|`, and no shell reads it; write it as a list, one word each",
    ]
    assert caught.value.hint is not None and "docs/compose.md" in caught.value.hint


def test_the_key_itself_can_be_wrong(tmp_path: Path) -> None:
    for keys, message in (
        ({"compose": "absent.yaml"}, "cannot read"),
        ({"compose": "/dev/null"}, "not a regular file"),
        ({"compose": "a\0b"}, "control character"),
        ({"compose": 7}, "must be text"),
        ({"containers": []}, "choose one of the two"),
        ({"outputs": ["tar"]}, "add `squashfs`"),
    ):
        problems = refused(tmp_path, service(), **keys)
        assert any(problem.path in ("compose", "") and message in problem.message and problem.line == 1 for problem in problems), problems


def test_a_container_with_a_volume_still_asks_where_it_is_kept(tmp_path: Path) -> None:
    problems = refused(tmp_path, service(volumes=["data:/data"]), **{"data-root": {}})
    assert [problem.path for problem in problems] == ["data-root"]
    assert "container app has the volume `data:/data`" in problems[0].message


def test_config_shows_the_containers_and_reading_that_again_needs_no_compose_file(tmp_path: Path) -> None:
    manifest = described(tmp_path, service(ports=["8080:80"], healthcheck={"test": ["NONE"]}, entrypoint="/bin/x a"))
    data = to_data(manifest)
    assert "compose" not in data
    assert data["containers"][0]["ports"] == ["8080:80"]
    assert data["containers"][0]["health"] == {"disable": True}
    (tmp_path / "compose.yaml").unlink()
    assert parse_manifest(json.dumps(data).encode(), "again") == manifest
    assert resolve(manifest, Overrides(outputs=("squashfs",))).device == manifest.device


def test_the_path_begins_at_the_manifests_folder_and_no_variable_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = described(tmp_path / "there", service())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMPOSE_FILE", "/nowhere")
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", "p")
    assert load_manifest(Path("there/shiplap.yaml")) == there


PIECES = [
    *("services:", "\n", "  ", "app:", " {", "}", "[", "]", ", ", "image: app:1", "- ", ": ", "$", "$$", "'", '"', "&a ", "*a", "volumes:"),
    *("ports: ", "8080:80", "environment: ", "A=b", "null", "1", "depends_on: ", "healthcheck: ", "test: ", "type: bind", "x-a: ", "\x00"),
]


def judged(raw: bytes) -> ComposeFile | None:
    problems: list[Problem] = []
    read = parse_compose(raw, "c.yaml", problems)
    assert (read is None) == bool(problems)
    lines = raw.count(b"\n") + raw.count(b"\r") + raw.count(b"\xc2\x85") + raw.count(b"\xe2\x80") + 2
    assert all(problem.file == "c.yaml" and 1 <= problem.line <= lines for problem in problems)
    return read


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join) | st.text(max_size=60))
def test_random_files_are_read_or_refused_and_nothing_else(text: str) -> None:
    judged(text.encode("utf-8", "surrogatepass"))


TEXTS = st.sampled_from(["", "/a", "data:/x", "$"])
NAMES = st.sampled_from(["type", "target", "source", "test", "A", "path"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 1 << 40) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(NAMES, below, max_size=3),
    max_leaves=5,
)
SERVICE_KEYS = [
    *("image", "command", "entrypoint", "environment", "env_file", "volumes", "ports", "devices", "healthcheck", "depends_on", "tmpfs"),
    *("labels", "mem_limit", "cpus", "user", "cap_add", "restart"),
]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(SERVICE_KEYS), VALUES, max_size=4))
def test_every_value_of_every_key_is_read_or_refused(keys: Data) -> None:
    judged(json.dumps(service(**keys)).encode())


def test_a_hostile_file_costs_little() -> None:
    laughs = "x-0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(f"x-{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
    problems: list[Problem] = []
    for text in (laughs, "services: " + "[" * 10_000, "a" * (1 << 19), "services: {" + "a: {}," * 30_000 + "}"):
        assert parse_compose(text.encode(), "c", problems) is None
    assert len(ManifestError("m", problems).message) < 20_000
    assert any("aliases counted" in problem.message for problem in problems)


@pytest.mark.parametrize("name", ["{}x", "a b{}", "k " * 40 + "{}"])
def test_thousands_of_problems_are_found_and_placed_in_no_time(name: str) -> None:
    count = 2000
    keys = "".join(f"      '{name.format(number)}': null\n" for number in range(count))
    problems: list[Problem] = []
    begun = time.process_time()
    assert parse_compose(f"services:\n  app:\n    image: app:1\n    environment:\n{keys}".encode(), "c", problems) is None
    assert len(problems) == count
    # A path has only the beginning of a long key.
    assert [problem.line for problem in problems[:2]] == ([5, 6] if len(name) < 60 else [5, 5])
    assert time.process_time() - begun < 5


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(st.sampled_from("ab '\"\t\nc$#=\\"), max_size=30))
def test_words_are_split_as_a_shell_would(text: str) -> None:
    try:
        wanted: list[str] | None = shlex.split(text)
    except ValueError:
        wanted = None
    try:
        assert shell_words(text) == wanted
    except WordsUnclear:
        assert wanted is None or "\\" in text


def test_words_that_only_a_shell_understands_are_refused_whatever_surrounds_them() -> None:
    chosen = random.Random(1)
    for character in ";&|<>()`\\":
        for _ in range(20):
            before = "".join(chosen.choices("ab ", k=4))
            with pytest.raises(WordsUnclear):
                shell_words(f"{before}{character} c")
    assert shell_words("'a;b' \"c|d\" 'e\\f'") == ["a;b", "c|d", "e\\f"]
