# nooelint: oelint.var.mandatoryvar.HOMEPAGE
# Written by `shiplap generate yocto`: the shiplap that wrote this layer.
SUMMARY = "Container images into embedded firmware as one deterministic, sealed store"
DESCRIPTION = "Builds a store for Docker or Podman from locked container images: a SquashFS and its dm-verity tree."
SECTION = "devel/python"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://LICENSE;md5=@LICENSE_MD5@"

CVE_PRODUCT = "shiplap"

SRC_URI = "@TOOL_URI@"
@TOOL_CHECKSUM@
inherit python_hatchling

do_install:append:class-native() {
    # Libraries that Python opens by name are the sysroot's.
    create_wrapper ${D}${bindir}/shiplap \
        LIBARCHIVE=${STAGING_LIBDIR_NATIVE}/libarchive.so.13 \
        LD_LIBRARY_PATH=${STAGING_LIBDIR_NATIVE} \
        'PATH=${STAGING_BINDIR_NATIVE}/python3-native:$PATH'
}

RDEPENDS:${PN} += "python3-pyyaml"
RDEPENDS:${PN}:append:class-target = " python3-libarchive-c python3-modules"
RDEPENDS:${PN}:append:class-native = " python3-libarchive-c-native"
# Core has no nativesdk-python3-libarchive-c; what is compressed by more than gzip, bzip2, xz and zstd cannot be read without it.
RDEPENDS:${PN}:append:class-nativesdk = " nativesdk-python3-modules"

BBCLASSEXTEND = "native nativesdk"
