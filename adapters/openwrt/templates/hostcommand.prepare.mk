define Build/Prepare
	$(INSTALL_DIR) $(PKG_BUILD_DIR)
	$(CP) ./LICENSES ./version.date $(PKG_BUILD_DIR)/
endef
