################################################################################
#
# shiplap-images
#
################################################################################

# Written by `shiplap generate`: change the manifest and generate again.

SHIPLAP_IMAGES_MANIFEST = $(call qstrip,$(BR2_PACKAGE_SHIPLAP_IMAGES_MANIFEST))
SHIPLAP_IMAGES_LOCK = $(SHIPLAP_IMAGES_MANIFEST:.yaml=.lock.yaml)
SHIPLAP_IMAGES_PATH = $(call qstrip,$(BR2_PACKAGE_SHIPLAP_IMAGES_PATH))

@FORMATS@
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
SHIPLAP_IMAGES_VERSION = @VERSION@-$(SHIPLAP_IMAGES_ID)

# The images are fetched by a hook: registries ask for tokens, and have blobs,
# not files.
SHIPLAP_IMAGES_SOURCE =
@LEGAL@
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

@COMMON@
