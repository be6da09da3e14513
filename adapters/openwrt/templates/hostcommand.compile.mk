define Build/Compile
	shiplap build -f $(CURDIR)/shiplap.yaml --lock $(CURDIR)/shiplap.lock.yaml --locked --offline \
		--cache $(SHIPLAP_CACHE) --mirror $(DL_DIR) --progress plain -o $(ARTIFACTS)
	rm -rf $(KIT)
	$(INSTALL_DIR) $(KIT)
	$(TAR) -C $(KIT) -xf $(ARTIFACTS)/target.tar
endef
