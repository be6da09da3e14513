"""The signatures that our tests make, and we accept, are those that Podman accepts by the same keys: the fixtures are genuine.

Debian 12's skopeo and Podman are built without sigstore; the newer engines have it.
"""

from __future__ import annotations

import hashlib
import json
import urllib.request
from pathlib import Path

import pytest
from archives import ImageSpec, oci_layout
from engines.installations import Installation, installations
from engines.podman import Podman
from layertar import item, layer
from registryserver import running_registry, skopeo_copy
from signing import ALGORITHMS, attach, make_key, sign, statement

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


@pytest.mark.parametrize("installation", [one for one in installations() if one.name != "installed"], ids=lambda one: one.name)
def test_podman_accepts_and_refuses_the_same_signatures(tmp_path: Path, installation: Installation) -> None:
    base = installation.demand("podman")
    with running_registry(tmp_path / "registry") as registry, Podman(tmp_path / "podman", base=base, binds=[tmp_path]) as engine:
        oci_layout(tmp_path / "layout", [ImageSpec([layer([item("app")])], ["app"])])
        skopeo_copy(f"oci:{tmp_path / 'layout'}:app", f"docker://{registry.address}/app:1")
        request = urllib.request.Request(f"http://{registry.address}/v2/app/manifests/1", headers={"Accept": MANIFEST_TYPE})
        with urllib.request.urlopen(request) as answer:
            digest = "sha256:" + hashlib.sha256(answer.read()).hexdigest()
        payload = statement(digest, f"{registry.address}/app")
        signed = [(payload, sign(make_key(tmp_path / "keys", name, name), payload)) for name in ALGORITHMS]
        attach(registry.address, "app", digest, *signed)
        make_key(tmp_path / "keys", "stranger")
        attachments = json.dumps({"default-docker": {"use-sigstore-attachments": True}})
        engine.root.run(
            ["sh", "-c", f"mkdir -p /etc/containers/registries.d; echo '{attachments}' >/etc/containers/registries.d/default.yaml"]
        )
        for name in (*ALGORITHMS, "stranger"):
            by_key = {
                "type": "sigstoreSigned",
                "keyPath": str(tmp_path / "keys" / f"{name}.pub"),
                "signedIdentity": {"type": "matchRepository"},
            }
            policy = tmp_path / f"{name}.json"
            policy.write_text(json.dumps({"default": [{"type": "reject"}], "transports": {"docker": {"": [by_key]}}}))
            pull = ("pull", "-q", "--tls-verify=false", f"--signature-policy={policy}", f"{registry.address}/app@{digest}")
            done = engine.podman(*pull, check=False)
            assert (done.returncode == 0) is (name != "stranger"), (name, done.stderr.decode())
            if name == "stranger":
                assert b"cryptographic signature verification failed" in done.stderr
