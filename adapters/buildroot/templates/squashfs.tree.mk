
ifeq ($(BR2_PACKAGE_SHIPLAP_IMAGES)$(BR2_PACKAGE_SHIPLAP_IMAGES_PLACEMENT_ROOTFS_TREE),yy)
# Owners, capabilities, whiteouts and times reach mksquashfs in a pseudo file:
# what lies in TARGET_DIR loses them.
ROOTFS_SQUASHFS_ARGS += -pf $(SHIPLAP_IMAGES_PSEUDO_FILE)
endif

