################################################################################
#
# shiplap-images
#
################################################################################

# Written by `shiplap generate`: change the manifest and generate again.

SHIPLAP_IMAGES_VERSION = 20240501-1e6ed65d77d6
SHIPLAP_IMAGES_SOURCE = lab-box-20240501.tar
SHIPLAP_IMAGES_SITE = https://downloads.example.com/lab
SHIPLAP_IMAGES_PATH = /usr/share/shiplap
SHIPLAP_IMAGES_PLACEMENT = partition
SHIPLAP_IMAGES_ARTIFACTS = store.squashfs
SHIPLAP_IMAGES_TREES = store.verity store.roothash
SHIPLAP_IMAGES_LICENSE = \
	BSD-3-Clause (docker.io/library/redis:7), \
	LicenseRef-Acme (registry.example/team/app:2.1)
SHIPLAP_IMAGES_LICENSE_FILES = image-licenses.txt
SHIPLAP_IMAGES_REDISTRIBUTE = NO

# The archive is the output folder of a finished `shiplap build`.
define SHIPLAP_IMAGES_EXTRACT_CMDS
	mkdir -p $(@D)/out
	$(TAR) -xf $(SHIPLAP_IMAGES_DL_DIR)/$(SHIPLAP_IMAGES_SOURCE) --strip-components=1 -C $(@D)/out
endef

define SHIPLAP_IMAGES_BUILD_CMDS
	cd $(@D)/out && sha256sum -c --quiet SHA256SUMS
	$(SHIPLAP_IMAGES_CHECK_SIZE)
endef

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
	$(TAR) -xf $(@D)/out/target.tar -C $(TARGET_DIR) \
		--keep-directory-symlink --no-same-owner usr/lib/systemd
endef

define SHIPLAP_IMAGES_INSTALL_INIT_SYSV
	@echo "shiplap-images: the manifest has files for systemd only; add sysv to target: init" >&2; exit 1
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
	$(call KCONFIG_ENABLE_OPT,CONFIG_OVERLAY_FS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_BLK_DEV_LOOP)
	$(call KCONFIG_ENABLE_OPT,CONFIG_MISC_FILESYSTEMS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_SQUASHFS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_SQUASHFS_XATTR)
	$(call KCONFIG_ENABLE_OPT,CONFIG_SQUASHFS_ZSTD)
	$(call KCONFIG_ENABLE_OPT,CONFIG_MD)
	$(call KCONFIG_ENABLE_OPT,CONFIG_BLK_DEV_DM)
	$(call KCONFIG_ENABLE_OPT,CONFIG_DM_VERITY)
	$(call KCONFIG_ENABLE_OPT,CONFIG_CRYPTO_SHA256)
	$(ROOTFS_SQUASHFS_VERITY_LINUX_CONFIG_FIXUPS)
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
	mkdir -p $(LICENSE_FILES_DIR_TARGET)/$(SHIPLAP_IMAGES_BASENAME_RAW)
	cp $(SHIPLAP_IMAGES_PKGDIR)/image-licenses.txt $(LICENSE_FILES_DIR_TARGET)/$(SHIPLAP_IMAGES_BASENAME_RAW)/
	for file in $(wildcard $(SHIPLAP_IMAGES_DIR)/out/sbom.*); do cp "$$file" $(LICENSE_FILES_DIR_TARGET)/$(SHIPLAP_IMAGES_BASENAME_RAW)/; done
	$(call legal-manifest,TARGET,docker.io/library/redis:7,sha256:7ef4f16c94b88c64d69b5c9edebfdfb1d6cf765c08b259ec4e7acf0a850d05c8,BSD-3-Clause,image-licenses.txt,not saved,docker://redis:7,)
	$(call legal-manifest,TARGET,registry.example/team/app:2.1,sha256:c4e17a4c007a1fcc1fdd7d1405f82d6cf559eea6b664bef2001ec0a793587860,LicenseRef-Acme,image-licenses.txt,not saved,docker://registry.example/team/app:2.1,)
endef
SHIPLAP_IMAGES_POST_LEGAL_INFO_HOOKS += SHIPLAP_IMAGES_SAVE_LEGAL_INFO

ifeq ($(BR2_PACKAGE_SHIPLAP_IMAGES)$(BR_BUILDING),yy)
ifneq ($(filter /var /var/% /run /run/% /tmp /tmp/%,$(SHIPLAP_IMAGES_PATH)),)
$(error BR2_PACKAGE_SHIPLAP_IMAGES_PATH: with systemd /var is a copy in memory, and /run and /tmp are emptied: choose another folder)
endif
ifeq ($(filter /%,$(SHIPLAP_IMAGES_PATH)),)
$(error BR2_PACKAGE_SHIPLAP_IMAGES_PATH: write an absolute path)
endif
ifeq ($(filter 20 21 22 23 24 25 26 27 28 custom,$(firstword $(subst ., ,$(patsubst v%,%,$(DOCKER_ENGINE_VERSION))))),)
$(error shiplap-images: stores are tested with docker 20.10 to 28, this is $(patsubst v%,%,$(DOCKER_ENGINE_VERSION)): build with `mode: archive`)
endif
endif

$(eval $(generic-package))
