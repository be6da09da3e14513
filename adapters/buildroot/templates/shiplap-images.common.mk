SHIPLAP_IMAGES_MAX_SIZE = $(call qstrip,$(BR2_PACKAGE_SHIPLAP_IMAGES_MAX_SIZE))

ifneq ($(SHIPLAP_IMAGES_MAX_SIZE),)
define SHIPLAP_IMAGES_CHECK_SIZE
	$(Q)cd $(@D)/out && limit=$$(numfmt --from=iec $(SHIPLAP_IMAGES_MAX_SIZE)) && for file in $(SHIPLAP_IMAGES_ARTIFACTS); do \
		if ! [ "$$(stat -c %s "$$file")" -le "$$limit" ]; then \
			echo "shiplap-images: $$file has $$(stat -c %s "$$file") bytes, BR2_PACKAGE_SHIPLAP_IMAGES_MAX_SIZE allows $(SHIPLAP_IMAGES_MAX_SIZE)" >&2; \
			exit 1; \
		fi; \
	done
endef
endif

# The kit is unpacked without the files of init systems; those come below.
# What an earlier build left there would be started on the device.
define SHIPLAP_IMAGES_INSTALL_TARGET_CMDS
	rm -rf $(TARGET_DIR)/etc/shiplap
	rm -f $(addprefix $(TARGET_DIR)$(SHIPLAP_IMAGES_PATH)/,store.* images.tar*)
	$(TAR) -xf $(@D)/out/target.tar -C $(TARGET_DIR) \
		--keep-directory-symlink --no-same-owner --exclude-from=$(SHIPLAP_IMAGES_PKGDIR)/init-files
	$(SHIPLAP_IMAGES_INSTALL_STORE)
endef

ifeq ($(SHIPLAP_IMAGES_PLACEMENT),file)
define SHIPLAP_IMAGES_INSTALL_STORE
	mkdir -p $(TARGET_DIR)$(SHIPLAP_IMAGES_PATH)
	cd $(@D)/out && $(INSTALL) -m 0644 $(SHIPLAP_IMAGES_ARTIFACTS) $(SHIPLAP_IMAGES_TREES) $(TARGET_DIR)$(SHIPLAP_IMAGES_PATH)
endef
endif

define SHIPLAP_IMAGES_INSTALL_INIT_SYSTEMD
@SYSTEMD@
endef

define SHIPLAP_IMAGES_INSTALL_INIT_SYSV
@SYSV@
endef

# The whole result, for an update, a partition, `shiplap verify`, an SBOM.
SHIPLAP_IMAGES_INSTALL_IMAGES = YES
define SHIPLAP_IMAGES_INSTALL_IMAGES_CMDS
	rm -rf $(BINARIES_DIR)/shiplap-images
	mkdir -p $(BINARIES_DIR)/shiplap-images
	for file in $(@D)/out/*; do \
		support/scripts/hardlink-or-copy $$file $(BINARIES_DIR)/shiplap-images || exit 1; \
	done
	$(SHIPLAP_IMAGES_INSTALL_PARTITIONS)
endef

# The UUID of each partition is half of the root hash, as the Discoverable
# Partitions Specification derives it and the device looks for it.
ifeq ($(SHIPLAP_IMAGES_PLACEMENT),partition)
SHIPLAP_IMAGES_UUID = sed -E 's/(.{8})(.{4})(.{4})(.{4})(.{12})/\1-\2-\3-\4-\5/'
define SHIPLAP_IMAGES_INSTALL_PARTITIONS
	sed -e "s/@data-uuid@/$$(cut -c 1-32 $(@D)/out/store.roothash | $(SHIPLAP_IMAGES_UUID))/" \
		-e "s/@tree-uuid@/$$(cut -c 33-64 $(@D)/out/store.roothash | $(SHIPLAP_IMAGES_UUID))/" \
		$(SHIPLAP_IMAGES_PKGDIR)/genimage.cfg.in > $(BINARIES_DIR)/shiplap-images/genimage.cfg
endef
endif

define SHIPLAP_IMAGES_LINUX_CONFIG_FIXUPS
@KERNEL@
endef

# BusyBox has every applet that the kit needs but this one, unless told so.
define SHIPLAP_IMAGES_BUSYBOX_CONFIG_FIXUPS
	$(call KCONFIG_ENABLE_OPT,CONFIG_STAT)
	$(call KCONFIG_ENABLE_OPT,CONFIG_FEATURE_STAT_FORMAT)
endef

# Before 2025.02 nobody does.
define SHIPLAP_IMAGES_CHECK_APPLETS
	$(Q)if [ -e $(TARGET_DIR)/bin/busybox ] && ! [ -e $(TARGET_DIR)/bin/stat ] && ! [ -e $(TARGET_DIR)/usr/bin/stat ]; then \
		echo "shiplap-images: the target kit needs stat: set CONFIG_STAT and CONFIG_FEATURE_STAT_FORMAT in BusyBox's configuration" >&2; \
		exit 1; \
	fi
endef
SHIPLAP_IMAGES_TARGET_FINALIZE_HOOKS += SHIPLAP_IMAGES_CHECK_APPLETS

# Packages without a source archive are passed over by legal-info.
define SHIPLAP_IMAGES_SAVE_LEGAL_INFO
@LEGAL_INFO@
endef
SHIPLAP_IMAGES_POST_LEGAL_INFO_HOOKS += SHIPLAP_IMAGES_SAVE_LEGAL_INFO

ifeq ($(BR2_PACKAGE_SHIPLAP_IMAGES)$(BR_BUILDING),yy)
@GUARDS@
endif

$(eval $(generic-package))
