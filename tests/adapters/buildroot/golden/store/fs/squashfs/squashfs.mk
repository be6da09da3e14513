################################################################################
#
# What shiplap adds to the squashfs root filesystem
#
################################################################################

# Written by `shiplap generate`: change the manifest and generate again.

ifeq ($(BR2_PACKAGE_SHIPLAP_IMAGES)$(BR2_PACKAGE_SHIPLAP_IMAGES_PLACEMENT_ROOTFS_TREE),yy)
# Owners, capabilities, whiteouts and times reach mksquashfs in a pseudo file:
# what lies in TARGET_DIR loses them.
ROOTFS_SQUASHFS_ARGS += -pf $(SHIPLAP_IMAGES_PSEUDO_FILE)
endif

ifeq ($(BR2_TARGET_ROOTFS_SQUASHFS_VERITY),y)

ROOTFS_SQUASHFS_VERITY_HASH = $(call qstrip,$(BR2_TARGET_ROOTFS_SQUASHFS_VERITY_HASH))
ROOTFS_SQUASHFS_VERITY_SALT = $(call qstrip,$(BR2_TARGET_ROOTFS_SQUASHFS_VERITY_SALT))
ROOTFS_SQUASHFS_VERITY_UUID = $(call qstrip,$(BR2_TARGET_ROOTFS_SQUASHFS_VERITY_UUID))

define ROOTFS_SQUASHFS_VERITY_FORMAT
	$(Q)rm -f $@.verity $@.roothash $@.dm-table
	$(HOST_PYTHON_SHIPLAP_COMMAND) --json verity format \
		--hash $(ROOTFS_SQUASHFS_VERITY_HASH) \
		$(if $(ROOTFS_SQUASHFS_VERITY_SALT),--salt=$(ROOTFS_SQUASHFS_VERITY_SALT)) \
		$(if $(ROOTFS_SQUASHFS_VERITY_UUID),--uuid=$(ROOTFS_SQUASHFS_VERITY_UUID)) \
		--jobs $(PARALLEL_JOBS) --root-hash-file $@.roothash $@ $@.verity > $@.verity.json
	$(Q)sed -n 's/^  "table": "\(.*\)",$$/\1/p' $@.verity.json > $@.dm-table
	$(Q)rm $@.verity.json
endef
ROOTFS_SQUASHFS_POST_GEN_HOOKS += ROOTFS_SQUASHFS_VERITY_FORMAT

# For the package that is there whenever this is.
define ROOTFS_SQUASHFS_VERITY_LINUX_CONFIG_FIXUPS
	$(call KCONFIG_ENABLE_OPT,CONFIG_MD)
	$(call KCONFIG_ENABLE_OPT,CONFIG_BLK_DEV_DM)
	$(call KCONFIG_ENABLE_OPT,CONFIG_DM_INIT)
	$(call KCONFIG_ENABLE_OPT,CONFIG_DM_VERITY)
	$(call KCONFIG_ENABLE_OPT,CONFIG_CRYPTO_SHA256)
	$(call KCONFIG_ENABLE_OPT,CONFIG_CRYPTO_SHA512)
endef
endif
