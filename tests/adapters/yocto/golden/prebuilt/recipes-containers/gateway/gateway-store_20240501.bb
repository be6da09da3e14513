# nooelint: oelint.var.mandatoryvar.HOMEPAGE
# Written by `shiplap generate yocto` from shiplap.yaml and shiplap.lock.yaml. Changes of yours belong in a .bbappend.
SUMMARY = "Container store of gateway"
DESCRIPTION = "app:1, as a store that the device's container engine uses where it is mounted."
SECTION = "virtualization"
LICENSE = "${@shiplap_license(d, 'MIT')}"
LICENSE:${PN} = "${@shiplap_license(d, 'MIT')}"
LIC_FILES_CHKSUM = "file://image-licenses.txt;md5=1af7df4c1ff3576dbffb0183f07f8e18"

SRC_URI = "\
    https://downloads.example/gateway-20240501.tar \
    file://image-licenses.txt \
"
SRC_URI[sha256sum] = "2222222222222222222222222222222222222222222222222222222222222222"
COMPATIBLE_HOST = "aarch64-.*-linux.*"
SHIPLAP_PLACEMENT = "file"
# nooelint: oelint.vars.pathhardcode.datadir
SHIPLAP_STORE_PATH = "/usr/share/shiplap"
SHIPLAP_ARTIFACT = "store.squashfs"
SHIPLAP_ENGINE = "docker"

inherit shiplap_package

SHIPLAP_OUT = "${SHIPLAP_SOURCES}/gateway-20240501"

do_compile() {
    cd "${SHIPLAP_OUT}"
    sha256sum --check --strict SHA256SUMS
}
