# Written by `shiplap generate yocto`.
#
# SPDX-License-Identifier: MIT
#
# For image recipes: what a package cannot do. A store with `placement: file` needs none of it, only IMAGE_INSTALL.
#
# SHIPLAP_STORES          recipes of stores that this image embeds; nothing happens while it is empty
# SHIPLAP_MAX_BYTES       a flag for each image type, for example SHIPLAP_MAX_BYTES[squashfs] = "62914560"; a larger image is an error
#
# `placement: tree`       the store is unpacked into the root file system, with owners, capabilities, whiteouts and devices
# `placement: partition`  in a .wks.in:  ${@shiplap_partition(d, 'RECIPE', 'data')}  and  ${@shiplap_partition(d, 'RECIPE', 'hash')}
# In every case           the root file system is held against the deployed store before an image is made of it

SHIPLAP_STORES ?= ""
SHIPLAP_STORES[doc] = "Recipes of container stores that the image embeds"

do_rootfs[depends] += "${@' '.join('%s:do_deploy' % store for store in d.getVar('SHIPLAP_STORES').split())}"

ROOTFS_POSTPROCESS_COMMAND:append = " shiplap_unpack_trees"
IMAGE_QA_COMMANDS:append = " shiplap_check_stores"
IMAGE_POSTPROCESS_COMMAND:append = " shiplap_check_sizes"

def shiplap_deployed(d, store, name):
    import os
    return os.path.join(d.getVar("DEPLOY_DIR_IMAGE"), store, name)

def shiplap_document(d, store, name):
    import json
    with open(shiplap_deployed(d, store, name), encoding="utf-8") as file:
        return json.load(file)

def shiplap_placement(d, store):
    target = shiplap_document(d, store, "record.json").get("options", {}).get("target", {})
    return target.get("placement", "file")

def shiplap_root_hash(d, store):
    """The store's root hash; empty before it was built, as when `bitbake -e` looks."""
    try:
        with open(shiplap_deployed(d, store, "store.roothash"), encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        return ""

def shiplap_partition(d, store, what):
    """A partition of the store for wic: type and UUID, by which the device finds it (Discoverable Partitions Specification)."""
    import uuid
    root_hash = shiplap_root_hash(d, store)
    half = {"data": root_hash[:32], "hash": root_hash[-32:]}[what] or "0" * 32
    file = {"data": "store.squashfs", "hash": "store.verity"}[what]
    if what == "data" and not os.path.exists(shiplap_deployed(d, store, file)):
        file = "store.erofs"
    return ('--source rawcopy --sourceparams="file=%s" --part-name %s --part-type 0FC63DAF-8483-4772-8E79-3D69D8477DE4 --uuid %s'
            % (shiplap_deployed(d, store, file), "store" if what == "data" else "store-verity", uuid.UUID(half)))

# Runs under pseudo, where tar may give away files and make devices.
shiplap_unpack_trees() {
    for store in ${SHIPLAP_STORES}; do
        tree=${DEPLOY_DIR_IMAGE}/$store/tree.tar
        [ -e "$tree" ] || continue
        path=$(sed -n 's/.*"store-path":"\([^"]*\)".*/\1/p' ${DEPLOY_DIR_IMAGE}/$store/store.json)
        mkdir -p "${IMAGE_ROOTFS}$path/store"
        tar -x -p --numeric-owner --xattrs --xattrs-include='*' -f "$tree" -C "${IMAGE_ROOTFS}$path/store"
    done
}

shiplap_unpack_trees[doc] = "Unpacks stores with placement: tree into the root file system"

python shiplap_check_stores () {
    import hashlib
    import os
    for store in d.getVar("SHIPLAP_STORES").split():
        with open(shiplap_deployed(d, store, "SHA256SUMS"), encoding="ascii") as file:
            sums = dict(reversed(line.split()) for line in file)
        folder = d.getVar("IMAGE_ROOTFS") + shiplap_document(d, store, "store.json")["store-path"]
        placement = shiplap_placement(d, store)
        if placement == "tree" and not os.path.exists(os.path.join(folder, "store", "store.json")):
            raise oe.utils.ImageQAFailed("%s is not in the root file system" % store, "shiplap_check_stores")
        if placement != "file":
            continue
        found = [name for name in sorted(sums) if os.path.exists(os.path.join(folder, name))]
        if not any(name.startswith(("store.squashfs", "store.erofs", "images.tar")) for name in found):
            raise oe.utils.ImageQAFailed("%s is not installed: add it to IMAGE_INSTALL" % store, "shiplap_check_stores")
        for name in found:
            with open(os.path.join(folder, name), "rb") as file:
                hasher = hashlib.sha256()
                for piece in iter(lambda: file.read(1 << 20), b""):
                    hasher.update(piece)
            if hasher.hexdigest() != sums[name]:
                raise oe.utils.ImageQAFailed("%s: %s in the root file system is not the deployed one" % (store, name), "shiplap_check_stores")
}

shiplap_check_stores[doc] = "Holds the stores in the root file system against the deployed ones"

python shiplap_check_sizes () {
    import os
    for kind, limit in sorted((d.getVarFlags("SHIPLAP_MAX_BYTES") or {}).items()):
        if kind in ("doc", "type") or kind.startswith("_"):
            continue
        path = os.path.join(d.getVar("IMGDEPLOYDIR"), "%s.%s" % (d.getVar("IMAGE_NAME"), kind))
        if os.path.exists(path) and os.path.getsize(path) > int(limit):
            bb.fatal("%s has %d bytes, SHIPLAP_MAX_BYTES[%s] allows %s" % (os.path.basename(path), os.path.getsize(path), kind, limit))
}
shiplap_check_sizes[doc] = "Refuses images that are larger than SHIPLAP_MAX_BYTES allows"
shiplap_check_sizes[vardeps] += "SHIPLAP_MAX_BYTES"
