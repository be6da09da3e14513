	$(HOST_PYTHON_SHIPLAP_COMMAND) --json verity format \
		--hash $(ROOTFS_SQUASHFS_VERITY_HASH) \
		$(if $(ROOTFS_SQUASHFS_VERITY_SALT),--salt=$(ROOTFS_SQUASHFS_VERITY_SALT)) \
		$(if $(ROOTFS_SQUASHFS_VERITY_UUID),--uuid=$(ROOTFS_SQUASHFS_VERITY_UUID)) \
		--jobs $(PARALLEL_JOBS) --root-hash-file $@.roothash $@ $@.verity > $@.verity.json
	$(Q)sed -n 's/^  "table": "\(.*\)",$$/\1/p' $@.verity.json > $@.dm-table
	$(Q)rm $@.verity.json
