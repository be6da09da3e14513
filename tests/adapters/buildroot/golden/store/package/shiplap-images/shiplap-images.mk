################################################################################
#
# shiplap-images
#
################################################################################

# Written by `shiplap generate`: change the manifest and generate again.

SHIPLAP_IMAGES_MANIFEST = $(call qstrip,$(BR2_PACKAGE_SHIPLAP_IMAGES_MANIFEST))
SHIPLAP_IMAGES_LOCK = $(SHIPLAP_IMAGES_MANIFEST:.yaml=.lock.yaml)
SHIPLAP_IMAGES_PATH = $(call qstrip,$(BR2_PACKAGE_SHIPLAP_IMAGES_PATH))

ifeq ($(BR2_PACKAGE_SHIPLAP_IMAGES_FORMAT_STORE_PODMAN),y)
SHIPLAP_IMAGES_FORMAT_OPTS = --mode store --engine podman --driver overlay
SHIPLAP_IMAGES_ARTIFACTS = store.squashfs
SHIPLAP_IMAGES_TREES = store.verity store.roothash
else ifeq ($(BR2_PACKAGE_SHIPLAP_IMAGES_FORMAT_STORE_DOCKER),y)
SHIPLAP_IMAGES_FORMAT_OPTS = --mode store --engine docker --driver overlay2
SHIPLAP_IMAGES_ARTIFACTS = store.squashfs
SHIPLAP_IMAGES_TREES = store.verity store.roothash
else
SHIPLAP_IMAGES_FORMAT_OPTS = --mode archive --output tar
SHIPLAP_IMAGES_ARTIFACTS = images.tar
SHIPLAP_IMAGES_TREES =
endif

ifeq ($(BR2_PACKAGE_SHIPLAP_IMAGES_PLACEMENT_PARTITION),y)
SHIPLAP_IMAGES_PLACEMENT = partition
else ifeq ($(BR2_PACKAGE_SHIPLAP_IMAGES_PLACEMENT_ROOTFS_TREE),y)
SHIPLAP_IMAGES_PLACEMENT = tree
else
SHIPLAP_IMAGES_PLACEMENT = file
endif

SHIPLAP_IMAGES_OPTS = \
	$(SHIPLAP_IMAGES_FORMAT_OPTS) \
	--placement $(SHIPLAP_IMAGES_PLACEMENT) \
	--store-path $(SHIPLAP_IMAGES_PATH)

# Whatever decides the result is in the version: another lock, manifest or
# option is another build folder, and nothing else is built again.
ifeq ($(BR2_PACKAGE_SHIPLAP_IMAGES),y)
SHIPLAP_IMAGES_ID := $(shell { cat $(SHIPLAP_IMAGES_MANIFEST) $(SHIPLAP_IMAGES_LOCK); echo '$(SHIPLAP_IMAGES_OPTS)'; } | sha256sum | cut -c 1-12)
endif
SHIPLAP_IMAGES_VERSION = 20240501-$(SHIPLAP_IMAGES_ID)

# The images are fetched by a hook: registries ask for tokens, and have blobs,
# not files.
SHIPLAP_IMAGES_SOURCE =
SHIPLAP_IMAGES_LICENSE = \
	BSD-3-Clause (docker.io/library/redis:7), \
	LicenseRef-Acme (registry.example/team/app:2.1)
SHIPLAP_IMAGES_LICENSE_FILES = image-licenses.txt
SHIPLAP_IMAGES_REDISTRIBUTE = NO

SHIPLAP_IMAGES_DOWNLOAD_DEPENDENCIES = host-python-shiplap
SHIPLAP_IMAGES_DEPENDENCIES = host-python-shiplap

# Files sha256-<hex> in the package's download folder, as any web server or
# BR2_PRIMARY_SITE can offer them; .cache has the same blobs (hard links where
# the file system can) in the form that shiplap works with.
SHIPLAP_IMAGES_CACHE = $(SHIPLAP_IMAGES_DL_DIR)/.cache

SHIPLAP_IMAGES_SITE_DIRS = $(foreach d,$(1)/$(SHIPLAP_IMAGES_DL_SUBDIR) $(1),--mirror $(patsubst file://%,%,$(d)))
SHIPLAP_IMAGES_PRIMARY = $(call qstrip,$(BR2_PRIMARY_SITE))
SHIPLAP_IMAGES_BACKUP = $(if $(BR2_PRIMARY_SITE_ONLY),,$(call qstrip,$(BR2_BACKUP_SITE)))

SHIPLAP_IMAGES_FETCH_CMD = \
	$(HOST_PYTHON_SHIPLAP_COMMAND) fetch \
	--file $(SHIPLAP_IMAGES_MANIFEST) \
	--cache $(SHIPLAP_IMAGES_CACHE) \
	--mirror $(SHIPLAP_IMAGES_DL_DIR) \
	$(if $(SHIPLAP_IMAGES_PRIMARY),$(call SHIPLAP_IMAGES_SITE_DIRS,$(SHIPLAP_IMAGES_PRIMARY)))

define SHIPLAP_IMAGES_FETCH
	$(Q)$(DOWNLOAD_SET_UMASK) mkdir -p $(SHIPLAP_IMAGES_DL_DIR)
	$(Q)$(DOWNLOAD_SET_UMASK) $(SHIPLAP_IMAGES_FETCH_CMD) \
		$(if $(BR2_PRIMARY_SITE_ONLY),--mirror-only) \
		$(if $(SHIPLAP_IMAGES_BACKUP),|| $(SHIPLAP_IMAGES_FETCH_CMD) --mirror-only $(call SHIPLAP_IMAGES_SITE_DIRS,$(SHIPLAP_IMAGES_BACKUP)))
	$(Q)$(DOWNLOAD_SET_UMASK) $(HOST_PYTHON_SHIPLAP_COMMAND) cache export --link \
		--lock $(SHIPLAP_IMAGES_LOCK) --cache $(SHIPLAP_IMAGES_CACHE) $(SHIPLAP_IMAGES_DL_DIR)
endef
SHIPLAP_IMAGES_POST_DOWNLOAD_HOOKS += SHIPLAP_IMAGES_FETCH

define SHIPLAP_IMAGES_BUILD_CMDS
	$(HOST_PYTHON_SHIPLAP_COMMAND) build \
		--file $(SHIPLAP_IMAGES_MANIFEST) --locked --offline \
		--cache $(SHIPLAP_IMAGES_CACHE) --mirror $(SHIPLAP_IMAGES_DL_DIR) \
		--jobs $(PARALLEL_JOBS) $(SHIPLAP_IMAGES_OPTS) --out $(@D)/out
	$(SHIPLAP_IMAGES_CHECK_SIZE)
endef

ifeq ($(BR2_PACKAGE_SHIPLAP_IMAGES_PLACEMENT_ROOTFS_TREE),y)
SHIPLAP_IMAGES_DEPENDENCIES += host-squashfs
SHIPLAP_IMAGES_PSEUDO_FILE = $(SHIPLAP_IMAGES_DIR)/store.pseudo
define SHIPLAP_IMAGES_MAKE_PSEUDO_FILE
	set -o pipefail; $(HOST_DIR)/bin/unsquashfs -pf - $(@D)/out/store.squashfs | \
		$(HOST_DIR)/bin/python3 $(SHIPLAP_IMAGES_PKGDIR)/pseudo-file.py $(SHIPLAP_IMAGES_PATH)/store > $(SHIPLAP_IMAGES_PSEUDO_FILE)
endef
SHIPLAP_IMAGES_POST_BUILD_HOOKS += SHIPLAP_IMAGES_MAKE_PSEUDO_FILE
endif

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
	$(TAR) -xf $(@D)/out/target.tar -C $(TARGET_DIR) \
		--keep-directory-symlink --no-same-owner etc/init.d
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
ifeq ($(wildcard $(SHIPLAP_IMAGES_LOCK)),)
$(error BR2_PACKAGE_SHIPLAP_IMAGES_MANIFEST: there is no lock $(SHIPLAP_IMAGES_LOCK))
endif
ifeq ($(BR2_PACKAGE_SHIPLAP_IMAGES_FORMAT_STORE_DOCKER),y)
ifeq ($(filter 20 21 22 23 24 25 26 27 28 custom,$(firstword $(subst ., ,$(patsubst v%,%,$(DOCKER_ENGINE_VERSION))))),)
$(error shiplap-images: stores are tested with docker 20.10 to 28, this is $(patsubst v%,%,$(DOCKER_ENGINE_VERSION)): choose the archive)
endif
endif
ifeq ($(BR2_PACKAGE_SHIPLAP_IMAGES_FORMAT_STORE_PODMAN),y)
ifeq ($(filter 4 5 custom,$(firstword $(subst ., ,$(patsubst v%,%,$(PODMAN_VERSION))))),)
$(error shiplap-images: stores are tested with podman 4.3 to 5.8, this is $(patsubst v%,%,$(PODMAN_VERSION)): choose the archive)
endif
endif
ifeq ($(BR2_PACKAGE_SHIPLAP_IMAGES_PLACEMENT_ROOTFS_TREE),y)
ifneq ($(filter 4.0% 4.1% 4.2% 4.3% 4.4% 4.5%,$(SQUASHFS_VERSION)),)
$(error shiplap-images: mksquashfs $(SQUASHFS_VERSION) cannot take the unpacked store, 4.6 can: choose another placement)
endif
ifneq ($(filter-out rootfs-squashfs,$(TARGETS_ROOTFS)),)
$(error shiplap-images: only a squashfs keeps the store unpacked; switch off $(filter-out rootfs-squashfs,$(TARGETS_ROOTFS)))
endif
endif
endif

$(eval $(generic-package))
