# Written by `shiplap generate yocto`.
#
# SPDX-License-Identifier: MIT
#
# For image recipes, an opt-in: IMAGE_FSTYPES = "squashfs squashfs.shiplapverity" adds to the root file system's image
# IMAGE.squashfs.shiplapverity (dm-verity superblock and hash tree) and IMAGE.squashfs.roothash. Salt and UUID come from the content, so
# the same root file system has the same root hash in every build. The image itself is padded with zeros to whole blocks; name its type in
# IMAGE_FSTYPES, too, else it is removed and the tree covers nothing.

CONVERSIONTYPES:append = " shiplapverity"
# image_types.bbclass wants these names.
# nooelint: oelint.vars.mispell.unknown,oelint.vars.specific
CONVERSION_CMD:shiplapverity = "shiplap_seal ${IMAGE_NAME}.${type}"
# nooelint: oelint.vars.mispell.unknown
CONVERSION_DEPENDS_shiplapverity = "shiplap-native"

shiplap_seal() {
    rm -f "$1.shiplapverity" "$1.roothash"
    shiplap verity format --pad "$1" "$1.shiplapverity" --root-hash-file "$1.roothash"
    if [ -n "${IMAGE_LINK_NAME}" ] && [ "${IMAGE_LINK_NAME}" != "${IMAGE_NAME}" ]; then
        ln -sf "$1.roothash" "${IMAGE_LINK_NAME}.${1#${IMAGE_NAME}.}.roothash"
    fi
}
shiplap_seal[doc] = "Writes the dm-verity tree and the root hash of an image"
