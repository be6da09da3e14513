"""The generated layer: every file of it as text."""

from __future__ import annotations

import hashlib
from importlib import resources

from shiplap.adapters.config import AdapterConfig
from shiplap.adapters.licences import licence_statement
from shiplap.adapters.preparing import GenerateRefused
from shiplap.adapters.template import fill, read_template
from shiplap.adapters.yocto.licenses import all_of, with_names
from shiplap.adapters.yocto.sources import image_files, image_sources
from shiplap.core.sbom.expression import own_licences

SERIES = ("scarthgap", "whinlatter", "wrynose", "blacksail")
PREBUILT_SERIES = ("kirkstone", *SERIES)
"""Without shiplap in the build neither the host's Python nor ``addpylib`` matters."""

# What OpenEmbedded calls the processors that run an architecture of OCI, as TARGET_ARCH has them.
_HOSTS = {
    "386": "(i.86|x86_64)",
    "amd64": "x86_64",
    "arm": "(arm|aarch64)",
    "arm64": "aarch64",
    "loong64": "loongarch64",
    "mips": "mips",
    "mips64": "mips64",
    "mips64le": "mips64el",
    "mipsle": "mipsel",
    "ppc64le": "powerpc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
}
_LICENSES_HEAD = (
    "Licences of the container images, as shiplap.yaml states them. The texts are in the images: /usr/share/doc, /usr/share/licenses.\n"
)
_TOOL_ROW = "| `shiplap-native` | the program that builds the store; `nativesdk-shiplap` for an SDK |\n"
_CONTINUE = " \\\n    "


def layer_files(config: AdapterConfig) -> dict[str, str]:
    """Path in the layer → text. Raises GenerateRefused."""
    if config.prebuilt is not None and config.manifest.device.placement == "tree":
        raise GenerateRefused(
            "`placement: tree` needs shiplap in Yocto's build, which unpacks the store there",
            hint="leave --prebuilt out, or choose `placement: file`",
        )
    name, store = recipe_name(config), store_name(config)
    files = {
        "README.md": _readme(config),
        "SECURITY.md": read_template("yocto", "SECURITY.md"),
        "COPYING.MIT": _license_text(),
        "conf/layer.conf": _layer_conf(config),
        f"{_classes(config)}/shiplap_package.bbclass": read_template("yocto", "shiplap_package.bbclass"),
        f"{_classes(config)}/shiplap_image.bbclass": read_template("yocto", "shiplap_image.bbclass"),
        f"recipes-containers/{name}/{store}_{config.version}.bb": _store(config),
        f"recipes-containers/{name}/files/image-licenses.txt": _licenses_file(config),
        f"recipes-core/images/{name}-image.bb": _image(config),
    }
    if config.manifest.device.placement == "partition":
        files[f"recipes-core/images/{name}.wks.in"] = _partitions(config)
    return files if config.prebuilt is not None else files | _tool_files(config)


def recipe_name(config: AdapterConfig) -> str:
    """The manifest's name, as far as a recipe's file name may have it: an underscore begins the version there."""
    return config.name.replace("_", "-")


def store_name(config: AdapterConfig) -> str:
    return f"{recipe_name(config)}-store"


def files_folder(config: AdapterConfig) -> str:
    """Where the store's recipe finds files of its own."""
    return f"recipes-containers/{recipe_name(config)}/files"


def tool_folder() -> str:
    return "recipes-devtools/shiplap/files"


def next_steps(config: AdapterConfig) -> str:
    """What to do with the layer; also in its README."""
    name, store = recipe_name(config), store_name(config)
    brought = () if config.prebuilt is not None else image_files(config)
    steps = [f"1. Copy {', '.join(brought)} into {files_folder(config)}/: the lock took images from there."] if brought else []
    own = own_licences(_image_license(config))
    if own:
        steps.append(f'Accept the licences of the images in local.conf: LICENSE_FLAGS_ACCEPTED += "{" ".join(own)}"')
    steps += [
        "bitbake-layers add-layer <this folder>; the engine on the device comes from meta-virtualization, veritysetup from meta-oe.",
        f'IMAGE_INSTALL:append = " {store}" in your image, or take `bitbake {name}-image` to begin with.',
        f"bitbake {store}; the artifacts are in DEPLOY_DIR_IMAGE/{store}/.",
    ]
    return "\n".join(f"{number}. {step.removeprefix('1. ')}" for number, step in enumerate(steps, 1)) + "\n"


def _tool_files(config: AdapterConfig) -> dict[str, str]:
    """What there is only where the build system runs shiplap itself."""
    name, tool = recipe_name(config), config.host_tool
    values = {
        "LICENSE_MD5": _md5(_license_text()),
        "TOOL_URI": _archive(tool.url, tool.file_name),
        "TOOL_CHECKSUM": f'SRC_URI[sha256sum] = "{tool.sha256}"\n' if tool.url else "",
    }
    return {
        "lib/shiplap_bb/__init__.py": read_template("yocto", "init.py.in"),
        "lib/shiplap_bb/ocifetch.py": read_template("yocto", "ocifetch.py.in"),
        "classes-recipe/shiplap_store.bbclass": read_template("yocto", "shiplap_store.bbclass"),
        "classes-recipe/shiplap_verity.bbclass": read_template("yocto", "shiplap_verity.bbclass"),
        f"recipes-devtools/shiplap/shiplap_{tool.version}.bb": fill(read_template("yocto", "shiplap.bb"), values),
        f"recipes-containers/{name}/files/shiplap.yaml": config.manifest_text,
        f"recipes-containers/{name}/files/shiplap.lock.yaml": config.lock_text,
    }


def _classes(config: AdapterConfig) -> str:
    """kirkstone knows no classes-recipe."""
    return "classes-recipe" if config.prebuilt is None else "classes"


def _series(config: AdapterConfig) -> tuple[str, ...]:
    return SERIES if config.prebuilt is None else PREBUILT_SERIES


def _layer_conf(config: AdapterConfig) -> str:
    values = {
        "COLLECTION": f"shiplap-{recipe_name(config)}",
        "SERIES": " ".join(_series(config)),
        "PYLIB": read_template("yocto", "pylib.conf") if config.prebuilt is None else "",
    }
    return fill(read_template("yocto", "layer.conf"), values).rstrip("\n") + "\n"


def _store(config: AdapterConfig) -> str:
    image_license = _image_license(config)
    prebuilt = config.prebuilt
    files = ["file://image-licenses.txt"]
    checksum = ""
    if prebuilt is None:
        files += ["file://shiplap.yaml", "file://shiplap.lock.yaml"]
        sources = list(image_sources(config))
        compiling = ""
    else:
        sources = [_archive(prebuilt.url, prebuilt.file_name)]
        checksum = f'SRC_URI[sha256sum] = "{prebuilt.sha256}"\n' if prebuilt.url else ""
        compiling = fill(read_template("yocto", "prebuilt_compile.inc"), {"FOLDER": f"{config.name}-{config.version}"})
    own = own_licences(image_license)
    values = {
        "NAME": config.name,
        "IMAGES": ", ".join(image.reference.familiar for image in config.images),
        "LICENSE": all_of(("MIT", *_licenses(config))),
        "IMAGE_LICENSE": image_license,
        "LICENSE_FLAGS": f'LICENSE_FLAGS = "{" ".join(own)}"\n' if own else "",
        "LICENSES_MD5": _md5(_licenses_file(config)),
        "SOURCES": _CONTINUE.join(["", *sources, *files]).lstrip(" ") + " \\\n",
        "VARIABLES": checksum + _variables(config),
        "CLASS": "shiplap_store" if prebuilt is None else "shiplap_package",
        "COMPILE": compiling,
    }
    return fill(read_template("yocto", "store.bb"), values)


def _archive(url: str | None, file_name: str) -> str:
    """A line of SRC_URI. BitBake unpacks by the end of the name, which not every URL has."""
    if url is None:
        return f"file://{file_name}"
    return url if url.endswith(f"/{file_name}") else f"{url};downloadfilename={file_name}"


def _variables(config: AdapterConfig) -> str:
    """What shiplap_package.bbclass has to know of the manifest, and licences without a file in OpenEmbedded."""
    manifest = config.manifest
    values = {
        "SHIPLAP_PLACEMENT": manifest.device.placement,
        "SHIPLAP_STORE_PATH": manifest.store_path,
        "SHIPLAP_ARTIFACT": config.artifact,
        "SHIPLAP_ENGINE": manifest.engine,
    }
    host = _HOSTS.get(config.platform.architecture)
    lines = [f'COMPATIBLE_HOST = "{host}-.*-linux.*"'] if host is not None else []
    for key, value in values.items():
        if value.startswith("/usr/share"):  # part of the store's bytes: never what the distribution makes of a variable
            lines.append("# nooelint: oelint.vars.pathhardcode.datadir")
        lines.append(f'{key} = "{value}"')
    expression = _image_license(config)
    own = own_licences(expression)
    # An OE-Core that reads SPDX expressions looks for the name without its prefix.
    unlisted = [*own, *(name.removeprefix("LicenseRef-") for name in own), *with_names(expression)]
    lines += [f'NO_GENERIC_LICENSE[{name}] = "image-licenses.txt"' for name in unlisted]
    return "".join(f"{line}\n" for line in lines)


def _licenses(config: AdapterConfig) -> tuple[str, ...]:
    return tuple(image.license for image in config.images)


def _image_license(config: AdapterConfig) -> str:
    return all_of(_licenses(config))


def _licenses_file(config: AdapterConfig) -> str:
    """What the maintainers state of each image; its digest stands in LIC_FILES_CHKSUM."""
    return licence_statement(config, _LICENSES_HEAD)


def _image(config: AdapterConfig) -> str:
    placement = config.manifest.device.placement
    lines = {
        "partition": f'\nIMAGE_FSTYPES = "wic"\nWKS_FILE = "{recipe_name(config)}.wks.in"\n',
        "tree": "# The store is unpacked into the root file system.\n",
        "file": "",
    }[placement]
    values = {
        "NAME": config.name,
        "CLASSES": "shiplap_image" if config.prebuilt is not None else "shiplap_image shiplap_verity",
        "STORE": store_name(config),
        "PLACEMENT": lines,
    }
    return fill(read_template("yocto", "image.bb"), values).rstrip("\n") + "\n"


def _partitions(config: AdapterConfig) -> str:
    store = store_name(config)
    sealed = config.manifest.verity.seal != "never" and "verity" in config.manifest.outputs
    hash_line = f"part ${{@shiplap_partition(d, '{store}', 'hash')}} --align 1024\n" if sealed else ""
    return fill(read_template("yocto", "partitions.wks.in"), {"STORE": store, "HASH": hash_line})


def _readme(config: AdapterConfig) -> str:
    values = {
        "NAME": recipe_name(config),
        "STORE": store_name(config),
        "SERIES_TEXT": ", ".join(_series(config)),
        "TOOL_ROW": _TOOL_ROW if config.prebuilt is None else "",
        "IMAGE_ROWS": "\n".join(f"- {image.reference} `{image.locked.config}`" for image in config.images),
        "STEPS": next_steps(config).rstrip("\n"),
        "MAINTAINER": config.maintainer,
    }
    return fill(read_template("yocto", "README.md"), values)


def _license_text() -> str:
    return (resources.files("shiplap.adapters") / "packaging" / "LICENSE").read_text(encoding="utf-8")


def _md5(text: str) -> str:
    """LIC_FILES_CHKSUM has no other digest."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
