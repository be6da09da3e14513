define Build/Prepare
	$(call Build/Prepare/Default)
	$(CP) ./LICENSES ./version.date $(PKG_BUILD_DIR)/
	$(INSTALL_DIR) $(KIT)
	$(TAR) -C $(KIT) -xf $(ARTIFACTS)/target.tar
endef
