# Written by `shiplap generate openwrt`. Opt-in steps for images, both for `IMAGE/...`:
#
#   include $(TOPDIR)/feeds/@FEED@/image/verity.mk
#   IMAGES += rootfs-verity.img
#   IMAGE/rootfs-verity.img := append-rootfs | shiplap-check-size | shiplap-verity
#
# shiplap-verity pads the root file system to whole blocks and writes, beside the firmware images, its hash tree, the root
# hash and the kernel's dm-mod.create= (as JSON; DATA_DEVICE, HASH_DEVICE and NAME are yours to fill in). The `shiplap`
# command is needed on the build host. What the device needs, and why the tree cannot be appended: docs/openwrt.md of shiplap.

SHIPLAP_FEED:=$(dir $(lastword $(MAKEFILE_LIST)))..

define Build/shiplap-check-size
	sh $(SHIPLAP_FEED)/utils/@NAME@/files/check-size.sh $@ $(CONFIG_TARGET_ROOTFS_PARTSIZE)
endef

define Build/shiplap-verity
	shiplap verity format --json --pad --root-hash-file $(BIN_DIR)/$(notdir $@).roothash \
		$@ $(BIN_DIR)/$(notdir $@).verity > $(BIN_DIR)/$(notdir $@).verity.json
endef
