################################################################################
#
# shiplap-images
#
################################################################################

# Written by `shiplap generate`: change the manifest and generate again.

SHIPLAP_IMAGES_VERSION = @VERSION@-@ID@
SHIPLAP_IMAGES_SOURCE = @FILE@
SHIPLAP_IMAGES_SITE = @SITE@
@METHOD@SHIPLAP_IMAGES_PATH = @STORE_PATH@
SHIPLAP_IMAGES_PLACEMENT = @PLACEMENT@
@LEGAL@
# The archive is the output folder of a finished `shiplap build`.
define SHIPLAP_IMAGES_EXTRACT_CMDS
	mkdir -p $(@D)/out
	$(TAR) -xf $(SHIPLAP_IMAGES_DL_DIR)/$(SHIPLAP_IMAGES_SOURCE) --strip-components=1 -C $(@D)/out
endef

define SHIPLAP_IMAGES_BUILD_CMDS
	cd $(@D)/out && sha256sum -c --quiet SHA256SUMS
	$(SHIPLAP_IMAGES_CHECK_SIZE)
endef

@COMMON@
