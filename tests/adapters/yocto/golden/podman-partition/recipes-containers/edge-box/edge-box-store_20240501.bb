# nooelint: oelint.var.mandatoryvar.HOMEPAGE
# Written by `shiplap generate yocto` from shiplap.yaml and shiplap.lock.yaml. Changes of yours belong in a .bbappend.
SUMMARY = "Container store of edge_box"
DESCRIPTION = "me/saved:2, as a store that the device's container engine uses where it is mounted."
SECTION = "virtualization"
LICENSE = "${@shiplap_license(d, 'MIT AND Apache-2.0')}"
LICENSE:${PN} = "${@shiplap_license(d, 'Apache-2.0')}"
LIC_FILES_CHKSUM = "file://image-licenses.txt;md5=5dbf98b35e77779e4e81845f218a8f55"

SRC_URI = "\
    file://saved.tar;unpack=0 \
    file://image-licenses.txt \
    file://shiplap.yaml \
    file://shiplap.lock.yaml \
"
COMPATIBLE_HOST = "x86_64-.*-linux.*"
SHIPLAP_PLACEMENT = "partition"
# nooelint: oelint.vars.pathhardcode.datadir
SHIPLAP_STORE_PATH = "/usr/share/shiplap"
SHIPLAP_ARTIFACT = "store.squashfs"
SHIPLAP_ENGINE = "podman"

inherit shiplap_store
