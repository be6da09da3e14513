# Written by `shiplap generate yocto`.
#
# SPDX-License-Identifier: MIT
#
# Builds a container store from a manifest and its lock with shiplap-native, without a network, a container engine or root, and packages
# it (see shiplap_package.bbclass). The same manifest and lock give the same bytes on every machine, in every build folder and
# whatever SOURCE_DATE_EPOCH is: everything that decides stands in the lock.
#
# The recipe has in SRC_URI the manifest, the lock, and one oci:// line for each blob that the lock names.
#
# SHIPLAP_MANIFEST   the manifest, a file of SRC_URI
# SHIPLAP_LOCK       its lock, a file of SRC_URI
# SHIPLAP_ARGS       further arguments of `shiplap build`; none is needed
# SHIPLAP_JOBS       processors to use; changes no byte and no signature

inherit python3native shiplap_package

DEPENDS += "shiplap-native"

SHIPLAP_MANIFEST ?= "shiplap.yaml"
SHIPLAP_LOCK ?= "shiplap.lock.yaml"
SHIPLAP_ARGS ?= ""
SHIPLAP_JOBS ?= "${@oe.utils.parallel_make_argument(d, '%d') or '1'}"
SHIPLAP_JOBS[vardepvalue] = "1"
SHIPLAP_OUT = "${B}/out"

shiplap_store_do_compile() {
    mkdir -p "${B}/spool"
    # Layers are spooled where there is room for them, and blobs are read where the fetcher put them.
    TMPDIR="${B}/spool" shiplap --progress plain build \
        --file "${SHIPLAP_SOURCES}/${SHIPLAP_MANIFEST}" --lock "${SHIPLAP_SOURCES}/${SHIPLAP_LOCK}" --locked --offline \
        --cache "${B}/cache" --mirror "${SHIPLAP_SOURCES}/blobs" --jobs ${SHIPLAP_JOBS} --out "${SHIPLAP_OUT}" ${SHIPLAP_ARGS}
    if [ "${SHIPLAP_PLACEMENT}" = tree ]; then
        # The image takes the store as one file up to its own last step: packages lose owners and attributes.
        shiplap extract "${SHIPLAP_OUT}/${SHIPLAP_ARTIFACT}" -o "${B}/tree.tar"
    fi
    rm -rf "${B}/spool" "${B}/cache"
}
shiplap_store_do_compile[doc] = "Builds the store from the locked blobs"
do_compile[cleandirs] = "${B}"

EXPORT_FUNCTIONS do_compile
