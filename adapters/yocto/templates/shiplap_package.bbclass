# Written by `shiplap generate yocto`.
#
# SPDX-License-Identifier: MIT
#
# Packages and deploys a finished store: ${PN} has the store image (or the archive), ${PN}-runtime the target kit, which opens it at
# boot and starts the containers. The store is one file, from the task that makes it to the device: package back ends, sstate and
# package QA see no file of an image, and change none.
#
# SHIPLAP_OUT             folder with the artifacts of `shiplap build`
# SHIPLAP_SOURCES         where do_unpack puts files
# SHIPLAP_PLACEMENT       file: a file in the root file system; partition: deployed only, for wic; tree: unpacked by shiplap_image.bbclass
# SHIPLAP_STORE_PATH      where the device finds the store
# SHIPLAP_ARTIFACT        the store image or the archive
# SHIPLAP_ENGINE          the engine that the store is for
# SHIPLAP_ENGINE_PACKAGE  its package, recommended by the target kit; by default meta-virtualization's, where that layer is there
# SHIPLAP_VERITY_PACKAGE  what brings veritysetup, for sealed stores; by default meta-oe's
# SHIPLAP_STORE_START     place of the store among the SysV init scripts, before the engine's
# SHIPLAP_CONTAINERS_START place of the containers, after the engine's

SUMMARY:${PN}-runtime = "Opens the container store at boot and starts its containers"
LICENSE:${PN}-runtime = "MIT"

inherit allarch deploy

SHIPLAP_PLACEMENT ?= "file"
SHIPLAP_STORE_PATH ?= "${datadir}/shiplap"
SHIPLAP_ARTIFACT ?= "store.squashfs"
SHIPLAP_ENGINE ?= "docker"
SHIPLAP_ENGINE_PACKAGE ?= "${@bb.utils.contains('BBFILE_COLLECTIONS', 'virtualization-layer', '${SHIPLAP_ENGINE}', '', d)}"
SHIPLAP_VERITY_PACKAGE ?= "${@bb.utils.contains('BBFILE_COLLECTIONS', 'openembedded-layer', 'cryptsetup', '', d)}"
SHIPLAP_STORE_START ?= "19"
SHIPLAP_CONTAINERS_START ?= "21"
# scarthgap has no UNPACKDIR.
SHIPLAP_SOURCES = "${@d.getVar('UNPACKDIR') or d.getVar('WORKDIR')}"

S = "${SHIPLAP_SOURCES}"
B = "${WORKDIR}/build"

# Vulnerability scanners find the packages of the images in the deployed sbom.*.json; the recipe's name is no product.
CVE_PRODUCT = ""

def shiplap_license(d, expression):
    """An SPDX expression as this OE-Core's LICENSE wants it: blacksail reads SPDX, the ones before have & and |."""
    import importlib.util
    if importlib.util.find_spec("oe.spdx_license"):
        return expression
    return expression.replace(" WITH ", "-with-").replace(" AND ", " & ").replace(" OR ", " | ")

do_configure[noexec] = "1"

shiplap_package_do_install() {
    if [ "${SHIPLAP_PLACEMENT}" = file ]; then
        install -d ${D}${SHIPLAP_STORE_PATH}
        for name in ${SHIPLAP_ARTIFACT} store.verity store.roothash store.roothash.p7s; do
            if [ -e "${SHIPLAP_OUT}/$name" ]; then
                install -m 0644 "${SHIPLAP_OUT}/$name" ${D}${SHIPLAP_STORE_PATH}/
            fi
        done
    fi
    [ -e "${SHIPLAP_OUT}/target.tar" ] || return 0

    tar -x --no-same-owner -p -f "${SHIPLAP_OUT}/target.tar" -C ${D}
    # Files for other init systems than the distribution's, and Buildroot's names of the scripts.
    rm -rf ${D}${sysconfdir}/uci-defaults ${D}${sysconfdir}/rc.d
    if ${@bb.utils.contains('DISTRO_FEATURES', 'systemd', 'true', 'false', d)}; then
        [ -d ${D}${exec_prefix}/lib/systemd/system ] || bbfatal "the target kit has no systemd units: name systemd in target: {init} of the manifest"
        if [ "${systemd_system_unitdir}" != "${exec_prefix}/lib/systemd/system" ]; then
            install -d ${D}${systemd_unitdir}
            mv ${D}${exec_prefix}/lib/systemd/system ${D}${systemd_system_unitdir}
            rmdir ${D}${exec_prefix}/lib/systemd
        fi
    else
        rm -rf ${D}${exec_prefix}/lib/systemd
    fi
    if ${@bb.utils.contains('DISTRO_FEATURES', 'sysvinit', 'true', 'false', d)}; then
        shiplap_sysv_script S59shiplap-store shiplap-store ${SHIPLAP_STORE_START}
        shiplap_sysv_script S61shiplap-containers shiplap-containers ${SHIPLAP_CONTAINERS_START}
        # OpenWrt's share the folder.
        rm -f ${D}${sysconfdir}/init.d/shiplap-xcontainers
    else
        rm -rf ${D}${sysconfdir}/init.d
    fi
}

shiplap_package_do_install[doc] = "Installs the store and the target kit for the distribution's init systems"

# shiplap_sysv_script NAME-IN-THE-KIT NAME START: links of the runlevels are files of the package, so nothing runs at installation
# and a read-only root file system has them, too. Nothing is stopped: mounts and containers end with the system.
shiplap_sysv_script() {
    [ -e ${D}${sysconfdir}/init.d/$1 ] || bbfatal "the target kit has no SysV script $1: name sysv in target: {init} of the manifest"
    mv ${D}${sysconfdir}/init.d/$1 ${D}${sysconfdir}/init.d/$2
    for level in 2 3 4 5; do
        install -d ${D}${sysconfdir}/rc$level.d
        ln -s ../init.d/$2 ${D}${sysconfdir}/rc$level.d/S$3$2
    done
}
shiplap_sysv_script[doc] = "Installs a SysV script of the target kit and its links"

do_deploy() {
    install -d ${DEPLOYDIR}/${PN}
    install -m 0644 ${SHIPLAP_OUT}/* ${DEPLOYDIR}/${PN}/
    if [ "${SHIPLAP_PLACEMENT}" = tree ]; then
        install -m 0644 ${B}/tree.tar ${DEPLOYDIR}/${PN}/
    fi
}
do_deploy[doc] = "Puts every artifact of the build into DEPLOY_DIR_IMAGE/PN"
addtask deploy after do_compile before do_build

PACKAGES = "${PN} ${PN}-runtime"
# Whole lists: everything but the store is the kit's.
# nooelint: oelint.var.filesoverride
FILES:${PN} = "${SHIPLAP_STORE_PATH}/store.* ${SHIPLAP_STORE_PATH}/images.*"
# nooelint: oelint.var.filesoverride
FILES:${PN}-runtime = "/"
# With the store in a partition, or as a tree, there is no file of it here.
ALLOW_EMPTY:${PN} = "1"

# The kit has the hash of its store in it and opens no other.
RDEPENDS:${PN} = "${PN}-runtime (= ${EXTENDPKGV})"
RRECOMMENDS:${PN}-runtime = "${SHIPLAP_ENGINE_PACKAGE} ${SHIPLAP_VERITY_PACKAGE}"

EXPORT_FUNCTIONS do_install
