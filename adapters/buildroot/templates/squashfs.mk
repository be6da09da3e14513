################################################################################
#
# What shiplap adds to the squashfs root filesystem
#
################################################################################

# Written by `shiplap generate`: change the manifest and generate again.
@TREE@
ifeq ($(BR2_TARGET_ROOTFS_SQUASHFS_VERITY),y)

ROOTFS_SQUASHFS_VERITY_HASH = $(call qstrip,$(BR2_TARGET_ROOTFS_SQUASHFS_VERITY_HASH))
ROOTFS_SQUASHFS_VERITY_SALT = $(call qstrip,$(BR2_TARGET_ROOTFS_SQUASHFS_VERITY_SALT))
ROOTFS_SQUASHFS_VERITY_UUID = $(call qstrip,$(BR2_TARGET_ROOTFS_SQUASHFS_VERITY_UUID))

define ROOTFS_SQUASHFS_VERITY_FORMAT
	$(Q)rm -f $@.verity $@.roothash $@.dm-table
@FORMAT@
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
