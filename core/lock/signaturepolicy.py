"""Is the image signed as a containers-policy.json(5) demands: asked of skopeo, at lock time.

What a policy means (keys, key rings, lookaside folders, identities that are remapped, what stands for a registry that is
not named) is defined by the containers/image library, and Podman on the device reads the same file with the same library. A second
reading of our own would sooner or later accept what that one refuses. So skopeo copies the image, by digest, into a throw-away
folder under this policy: what it refuses is refused.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shiplap.core import run as programs
from shiplap.core.errors import OutsideFailure, Refused
from shiplap.core.image import Image
from shiplap.core.jsontext import parse_object
from shiplap.core.lock.model import LockedImage
from shiplap.core.lock.signature import Signature, SignatureRefused, signed_reference
from shiplap.core.platform import Platform
from shiplap.core.reference import Reference
from shiplap.core.registry.settings import RegistrySettings, settings_of
from shiplap.core.sources import Access, SourceSpec

_POLICY_LIMIT_BYTES = 1 << 20
_SHOWN = 1000
_PASSED_ON = ("REGISTRY_AUTH_FILE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "GNUPGHOME")
# logrus' text form: time="…" level=fatal msg="…"
_LOG_MESSAGE = re.compile(r'msg="((?:[^"\\]|\\.)*)"')


class PolicyInvalid(Refused):
    """A file that is no policy."""


@dataclass(frozen=True, slots=True)
class PolicyCheck:
    """A check for :class:`shiplap.core.lock.updating.Wishes`.

    ``policy``: the policy.json. ``lookaside``: a folder instead of /etc/containers/registries.d, which says where signatures of which
    registry lie. The signature must be of the platform's own manifest, as Podman wants it.
    """

    policy: Path
    access: Access
    lookaside: Path | None = None

    def __call__(self, locked: LockedImage, image: Image, spec: SourceSpec) -> Signature:
        reference = signed_reference(locked, image, spec, self.access)
        assert locked.manifest is not None
        return check_policy(
            self.policy, reference, locked.manifest.digest, locked.platform, self.access, lookaside=self.lookaside, what=locked.ref.familiar
        )


def check_policy(
    policy: Path,
    reference: Reference,
    manifest_digest: str,
    platform: Platform,
    access: Access,
    *,
    what: str,
    lookaside: Path | None = None,
) -> Signature:
    """Proof that ``policy`` accepts the manifest of ``reference``'s repository, as a lock keeps it.

    It is fetched once more, with its layers, and thrown away. Raises SignatureRefused, PolicyInvalid, ProgramMissing, and OutsideFailure
    when the registry fails.
    """
    fingerprint = _policy_fingerprint(policy)
    settings = settings_of(reference.domain, access.registries, access.default_registry)
    skopeo = programs.find("skopeo", package="skopeo")
    extra_env = {name: access.environment[name] for name in _PASSED_ON if name in access.environment}
    with tempfile.TemporaryDirectory(prefix="shiplap-") as folder, access.progress.task(f"{what}: signature"):
        source = f"docker://{reference.name}@{manifest_digest}"
        command: list[str] = [skopeo, "--policy", str(policy), "--tmpdir", folder, *_platform_options(platform)]
        if lookaside is not None:
            command += ["--registries.d", str(lookaside)]
        command += ["copy", "--quiet", "--preserve-digests", *_registry_options(settings), source, f"dir:{folder}/image"]
        done = programs.run(command, allowed=range(256), extra_env=extra_env)
        if done.returncode:
            raise _refusal(what, policy, done.stderr.decode("utf-8", "replace"))
        copied = "sha256:" + hashlib.sha256(Path(folder, "image", "manifest.json").read_bytes()).hexdigest()
        if copied != manifest_digest:
            raise SignatureRefused(f"{what}: skopeo checked {copied} instead of {manifest_digest}")
    pairs: Mapping[str, str] = {"kind": "policy", "policy": fingerprint, "digest": manifest_digest, "identity": reference.name}
    return tuple(sorted(pairs.items()))


def _policy_fingerprint(policy: Path) -> str:
    try:
        with policy.open("rb") as file:
            raw = file.read(_POLICY_LIMIT_BYTES + 1)
    except OSError as error:
        raise PolicyInvalid(f"cannot read the policy {policy}: {error.strerror}") from error
    parse_object(raw, what=str(policy), limit_bytes=_POLICY_LIMIT_BYTES)
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def _platform_options(platform: Platform) -> list[str]:
    """The manifest is named by digest; these are for what skopeo makes of its config."""
    own = platform.normalised
    return ["--override-os", own.os, "--override-arch", own.architecture, *(["--override-variant", own.variant] if own.variant else [])]


def _registry_options(settings: RegistrySettings) -> list[str]:
    options = []
    if settings.tls_verify is not None:
        options.append(f"--src-tls-verify={'true' if settings.tls_verify else 'false'}")
    if settings.cert_dir is not None:
        options += ["--src-cert-dir", str(settings.cert_dir)]
    if settings.authfile is not None:
        options += ["--src-authfile", str(settings.authfile)]
    return options


def _refusal(what: str, policy: Path, stderr: str) -> Refused | OutsideFailure:
    found = _LOG_MESSAGE.findall(stderr)
    message = re.sub(r"\\(.)", r"\1", found[-1]) if found else stderr.strip()
    message = "".join(c if c.isprintable() else " " for c in message)[:_SHOWN]  # the reason stands at the end
    if "sigstore disabled" in message:
        return PolicyInvalid(
            f"{what}: this skopeo was built without sigstore, which {policy} asks for (Debian 12's is)",
            hint="use a newer skopeo, or give the public key itself instead of the policy",
        )
    if "Source image rejected" in message:
        reason = message.partition("Source image rejected: ")[2] or message
        return SignatureRefused(
            f"{what} is not signed as {policy} demands: {reason}",
            hint="if the policy and its keys are right, do not trust the image",
        )
    if "policy" in message.lower():
        return PolicyInvalid(f"skopeo cannot use the policy {policy}: {message}", hint="containers-policy.json(5) describes it")
    return OutsideFailure(f"{what}: skopeo cannot check the signature: {message}")
