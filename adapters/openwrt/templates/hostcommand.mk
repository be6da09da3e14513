# The images come by shiplap itself, each blob into the download folder under its digest; CONFIG_LOCALMIRROR is asked first.
SHIPLAP_CACHE:=$(DL_DIR)/shiplap-cache
SHIPLAP_MIRRORS:=$(foreach url,$(subst ;, ,$(call qstrip,$(CONFIG_LOCALMIRROR))),--mirror $(patsubst file://%,%,$(url)))

define DownloadMethod/shiplap
	rm -f "$(DL_DIR)/$(FILE)" && \
	shiplap fetch -f $(CURDIR)/shiplap.yaml --lock $(CURDIR)/shiplap.lock.yaml \
		--cache $(SHIPLAP_CACHE) --mirror $(DL_DIR) $(SHIPLAP_MIRRORS) && \
	shiplap cache export $(DL_DIR) --lock $(CURDIR)/shiplap.lock.yaml --cache $(SHIPLAP_CACHE) --link \
	$(if $(filter check,$(1)),$(call check_hash,$(FILE),$(HASH),$(2)HASH))
endef

@DOWNLOADS@
$(eval $(call RequireCommand,shiplap, \
	Please install shiplap @TOOL_VERSION@ or newer: pipx install @TOOL@ \
))

$(eval $(call TestHostCommand,shiplap-version, \
	Please install shiplap @TOOL_VERSION@ or newer: pipx install @TOOL@, \
	sh ./files/shiplap-version.sh @TOOL_VERSION@ \
))

