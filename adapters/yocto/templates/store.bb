# nooelint: oelint.var.mandatoryvar.HOMEPAGE
# Written by `shiplap generate yocto` from shiplap.yaml and shiplap.lock.yaml. Changes of yours belong in a .bbappend.
SUMMARY = "Container store of @NAME@"
DESCRIPTION = "@IMAGES@, as a store that the device's container engine uses where it is mounted."
SECTION = "virtualization"
LICENSE = "${@shiplap_license(d, '@LICENSE@')}"
LICENSE:${PN} = "${@shiplap_license(d, '@IMAGE_LICENSE@')}"
@LICENSE_FLAGS@LIC_FILES_CHKSUM = "file://image-licenses.txt;md5=@LICENSES_MD5@"

SRC_URI = "@SOURCES@"
@VARIABLES@
inherit @CLASS@
@COMPILE@