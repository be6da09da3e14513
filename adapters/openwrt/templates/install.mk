define Package/@NAME@/install
	$(if $(CONFIG_TARGET_ROOTFS_PARTSIZE),sh ./files/check-size.sh $(ARTIFACTS)/@ARTIFACT@ $(CONFIG_TARGET_ROOTFS_PARTSIZE))
	$(INSTALL_DIR) $(1)@STORE_PATH@/store
	$(INSTALL_DATA) $(ARTIFACTS)/@ARTIFACT@ $(1)@STORE_PATH@/
@TREE@	$(INSTALL_DIR) $(1)/usr/sbin $(1)/usr/lib/shiplap
	$(INSTALL_BIN) $(KIT)/usr/sbin/shiplap-target $(1)/usr/sbin/
	$(INSTALL_DATA) $(KIT)/usr/lib/shiplap/*.sh $(1)/usr/lib/shiplap/
	$(INSTALL_DIR) $(1)/etc/shiplap
	$(CP) $(KIT)/etc/shiplap/. $(1)/etc/shiplap/
@STORAGE@@SETTLE@	$(INSTALL_DIR) $(1)/etc/init.d
	$(INSTALL_BIN) $(KIT)/etc/init.d/shiplap-store $(KIT)/etc/init.d/shiplap-xcontainers $(1)/etc/init.d/
	$(INSTALL_DIR) $(1)/etc/config
	$(INSTALL_CONF) ./files/@NAME@.config $(1)/etc/config/shiplap
	$(INSTALL_DIR) $(1)/etc/uci-defaults
	$(INSTALL_BIN) ./files/@NAME@.defaults $(1)/etc/uci-defaults/50-@NAME@
	$(INSTALL_DIR) $(1)/lib/upgrade/keep.d
	$(INSTALL_DATA) ./files/@NAME@.keep $(1)/lib/upgrade/keep.d/@NAME@
@SBOM@endef
