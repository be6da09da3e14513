# nooelint: oelint.var.mandatoryvar.HOMEPAGE
# Written by `shiplap generate yocto` from shiplap.yaml and shiplap.lock.yaml. Changes of yours belong in a .bbappend.
SUMMARY = "Container store of gateway"
DESCRIPTION = "redis:7, acme/app:1, as a store that the device's container engine uses where it is mounted."
SECTION = "virtualization"
LICENSE = "${@shiplap_license(d, 'MIT AND (BSD-3-Clause AND (MIT OR GPL-2.0-only WITH Classpath-exception-2.0)) AND LicenseRef-Acme')}"
LICENSE:${PN} = "${@shiplap_license(d, '(BSD-3-Clause AND (MIT OR GPL-2.0-only WITH Classpath-exception-2.0)) AND LicenseRef-Acme')}"
LICENSE_FLAGS = "LicenseRef-Acme"
LIC_FILES_CHKSUM = "file://image-licenses.txt;md5=af9e3531072d9a35e2e54f24e07a70a9"

SRC_URI = "\
    oci://docker.io/library/redis;digest=sha256-0064071c3acbe4fa8c405af3bc10ff6e6c3efe5c3ec1122b671a18791ed222d9;size=1234 \
    oci://docker.io/library/redis;digest=sha256-1463a66e697628c238653c165efe5fb96fd85923f5ebdf5e8982eb71681fbeec;size=104 \
    oci://docker.io/library/redis;digest=sha256-e0ce2cf666d94d51ae879ce6ae9d04cf8af03053b2a6b2a4403e220ac9652eb5;size=105 \
    oci://registry.example:5000/team/app;digest=sha256-372d68e12f53ceb77edaad1d6a1440972ae2394cf1caa67210aecf7ab9a17818;size=1234;tls-verify=0 \
    oci://registry.example:5000/team/app;digest=sha256-601282c48772905d4d8f56fa978cd2f914f49a3abe776dc32fbaaf3484bea43b;size=108;tls-verify=0 \
    file://image-licenses.txt \
    file://shiplap.yaml \
    file://shiplap.lock.yaml \
"
COMPATIBLE_HOST = "aarch64-.*-linux.*"
SHIPLAP_PLACEMENT = "file"
# nooelint: oelint.vars.pathhardcode.datadir
SHIPLAP_STORE_PATH = "/usr/share/shiplap"
SHIPLAP_ARTIFACT = "store.squashfs"
SHIPLAP_ENGINE = "docker"
NO_GENERIC_LICENSE[LicenseRef-Acme] = "image-licenses.txt"
NO_GENERIC_LICENSE[Acme] = "image-licenses.txt"
NO_GENERIC_LICENSE[GPL-2.0-only-with-Classpath-exception-2.0] = "image-licenses.txt"

inherit shiplap_store
