# A clean-room stand-in for OpenWrt's package.mk: scan, download with its hash, prepare, compile, install, scripts.
PKG_BUILD_DIR=$(BUILD_DIR)/$(PKG_NAME)-$(PKG_VERSION)
SOURCE=$(CURDIR)
all: $(if $(DUMP),dumpinfo,compile)
dumpinfo: ; @:

define Build/Prepare/Default
	mkdir -p $(PKG_BUILD_DIR) && tar -C $(PKG_BUILD_DIR)/.. -xf $(DL_DIR)/$(PKG_SOURCE)
endef

define RequireCommand
prereq:: ; @command -v $(1) >/dev/null || { echo "$(strip $(2))"; exit 1; }
endef

define TestHostCommand
prereq:: ; @($(3)) >/dev/null || { echo "$(strip $(2))"; exit 1; }
endef

define Download
$(eval FILE:=)$(eval URL:=)$(eval HASH:=)$(eval PROTO:=default)$(eval $(Download/$(1)))
download: $(DL_DIR)/$(FILE)
$(DL_DIR)/$(FILE):
	mkdir -p $(DL_DIR)
	$(call DownloadMethod/$(PROTO))
	echo "$(HASH)  $$@" | sha256sum -c - || { rm -f $$@; exit 1; }
endef

define Download/default
  FILE:=$(PKG_SOURCE)
  URL:=$(PKG_SOURCE_URL)
  HASH:=$(PKG_HASH)
endef
DownloadMethod/default=cp $(patsubst file://%,%,$(URL))/$(FILE) $(DL_DIR)/

define Dump
$(info Package: $(1)
Version: $(PKG_VERSION)-r$(PKG_RELEASE)
Depends: $(DEPENDS)
Section: $(SECTION)
Category: $(CATEGORY)
Title: $(TITLE)
Maintainer: $(PKG_MAINTAINER)
License: $(PKG_LICENSE)
LicenseFiles: $(PKG_LICENSE_FILES)
Source: $(PKG_SOURCE)
Config:
$(Package/$(1)/config)
@@)
endef

define BuildPackage
$(eval $(Package/$(1)))$(if $(DUMP),$(call Dump,$(1)))
$(if $(PKG_SOURCE_URL),$(call Download,default))
download:
prepare: download
	rm -rf $(PKG_BUILD_DIR)
	$(Build/Prepare)
compile: prepare
	$(Build/Configure)
	$(Build/Compile)
	rm -rf $(PKG_BUILD_DIR)/ipkg && mkdir -p $(PKG_BUILD_DIR)/ipkg
	$(call Package/$(1)/install,$(PKG_BUILD_DIR)/ipkg)
scripts:
	$$(foreach script,conffiles postinst prerm,$$(file >$(TOPDIR)/scripts/$$(script),$$(Package/$(1)/$$(script))))
.PHONY: all download prepare compile scripts prereq dumpinfo
endef
