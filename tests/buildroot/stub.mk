# What the generated tree sees of Buildroot, in our own words: the variables and macros that it uses, one package's steps, and the order of
# a root file system (fs/common.mk): copy, chown, hooks, emptied /run and /tmp, times, the image's command, hooks. Called with O=, EXTERNAL=,
# EXTERNAL_NAME=; $(O)/.config is read, $(O)/host has the programs and $(O)/skeleton the files of the root.

SHELL := /bin/bash
.DEFAULT_GOAL := world
Q := @
TAR := tar
INSTALL := install
PARALLEL_JOBS := 2
BR_BUILDING := y
BR_PATH := $(O)/host/bin:$(PATH)
HOST_MAKE_ENV = PATH=$(BR_PATH)
HOST_DIR := $(O)/host
BUILD_DIR := $(O)/build
BASE_TARGET_DIR := $(O)/target
TARGET_DIR = $(if $(ROOTFS),$(BUILD_DIR)/fs/target,$(BASE_TARGET_DIR))
BINARIES_DIR := $(O)/images
LICENSE_FILES_DIR_TARGET := $(O)/legal-info/licenses
LEGAL_MANIFEST_CSV_TARGET := $(O)/legal-info/manifest.csv
DL_DIR := $(O)/dl
DOCKER_ENGINE_VERSION ?= 27.5.1
PODMAN_VERSION ?= v5.7.0
SQUASHFS_VERSION ?= 4.6.1
BR2_EXTERNAL_$(EXTERNAL_NAME)_PATH := $(EXTERNAL)

include $(O)/.config

quote := "
qstrip = $(strip $(subst $(quote),,$(1)))
define sep


endef
pkgdir = $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))
pkgname = $(notdir $(pkgdir))
UPPERCASE = $(shell echo '$(1)' | tr a-z- A-Z_)
KCONFIG_ENABLE_OPT = echo $(1)=y >> $(O)/kernel.config
legal-manifest = echo '"$(2)","$(3)","$(4)","$(5)","$(6)","$(7)","$(8)"' >> $(LEGAL_MANIFEST_CSV_$(1))

ROOTFS_SQUASHFS_ARGS = -noappend -no-progress -quiet -processors 2 $(if $(BR2_TARGET_ROOTFS_SQUASHFS_PAD),,-nopad)
ROOTFS_SQUASHFS_CMD = $(MKSQUASHFS) $(TARGET_DIR) $@ $(ROOTFS_SQUASHFS_ARGS)
TARGETS_ROOTFS := rootfs-squashfs $(EXTRA_ROOTFS)

host-python-package =
generic-package = $(call inner,$(pkgname),$(call UPPERCASE,$(pkgname)),$(pkgdir))

define inner
$(2)_PKGDIR := $(3)
$(2)_DL_SUBDIR := $(1)
$(2)_DL_DIR := $$(DL_DIR)/$(1)
$(2)_BASENAME_RAW = $(1)-$$($(2)_VERSION)
$(2)_DIR = $$(BUILD_DIR)/$$($(2)_BASENAME_RAW)
$(1)_STAMPS = $$(addprefix $$($(2)_DIR)/.stamp_,downloaded built target_installed images_installed)
ifeq ($$(BR2_PACKAGE_$(2)),y)
PACKAGES += $(1)
TARGET_FINALIZE_HOOKS += $$($(2)_TARGET_FINALIZE_HOOKS)
ROOTFS_PRE_CMD_HOOKS += $$($(2)_ROOTFS_PRE_CMD_HOOKS)
endif
$(1)-legal-info: PKG = $(2)
endef

include $(EXTERNAL)/external.mk

PKG = $(call UPPERCASE,$(firstword $(PACKAGES)))
STAMPS = $($(firstword $(PACKAGES))_STAMPS)

$(BUILD_DIR)/%/.stamp_downloaded:
	mkdir -p $($(PKG)_DL_DIR) $(@D)
	$(if $($(PKG)_SOURCE),cp $($(PKG)_SITE)/$($(PKG)_SOURCE) $($(PKG)_DL_DIR)/)
	$(foreach hook,$($(PKG)_POST_DOWNLOAD_HOOKS),$(call $(hook))$(sep))
	$($(PKG)_EXTRACT_CMDS)
	touch $@

$(BUILD_DIR)/%/.stamp_built: $(BUILD_DIR)/%/.stamp_downloaded
	$($(PKG)_BUILD_CMDS)
	$(foreach hook,$($(PKG)_POST_BUILD_HOOKS),$(call $(hook))$(sep))
	touch $@

$(BUILD_DIR)/%/.stamp_target_installed: $(BUILD_DIR)/%/.stamp_built
	mkdir -p $(BASE_TARGET_DIR)
	$($(PKG)_INSTALL_TARGET_CMDS)
	$(if $(BR2_INIT_SYSTEMD),$($(PKG)_INSTALL_INIT_SYSTEMD))
	$(if $(BR2_INIT_BUSYBOX),$($(PKG)_INSTALL_INIT_SYSV))
	touch $@

$(BUILD_DIR)/%/.stamp_images_installed: $(BUILD_DIR)/%/.stamp_built
	mkdir -p $(BINARIES_DIR)
	$($(PKG)_INSTALL_IMAGES_CMDS)
	touch $@

.PRECIOUS: $(BUILD_DIR)/%/.stamp_downloaded $(BUILD_DIR)/%/.stamp_built

$(BINARIES_DIR)/rootfs.squashfs: private ROOTFS = SQUASHFS
$(BINARIES_DIR)/rootfs.squashfs: $(STAMPS) FORCE
	mkdir -p $(BINARIES_DIR) $(BASE_TARGET_DIR)
	cp -a $(O)/skeleton/. $(BASE_TARGET_DIR)/
	$(foreach hook,$(TARGET_FINALIZE_HOOKS),$(subst $(BUILD_DIR)/fs/target,$(BASE_TARGET_DIR),$(call $(hook)))$(sep))
	rm -rf $(TARGET_DIR)
	mkdir -p $(TARGET_DIR)
	rsync -auH $(BASE_TARGET_DIR)/ $(TARGET_DIR)/
	printf '#!/bin/sh\nset -e\nchown -h -R 0:0 %s\n' $(TARGET_DIR) > $(BUILD_DIR)/fs/fakeroot
	$(foreach hook,$(ROOTFS_PRE_CMD_HOOKS),printf '%s\n' '$($(hook))' >> $(BUILD_DIR)/fs/fakeroot$(sep))
	printf '%s\n' 'find $(TARGET_DIR)/run $(TARGET_DIR)/tmp -mindepth 1 -delete' >> $(BUILD_DIR)/fs/fakeroot
	printf '%s\n' 'find $(TARGET_DIR) -print0 | xargs -0 touch -hd @1000000000' >> $(BUILD_DIR)/fs/fakeroot
	printf '%s\n' '$(ROOTFS_SQUASHFS_CMD)' >> $(BUILD_DIR)/fs/fakeroot
	chmod 755 $(BUILD_DIR)/fs/fakeroot
	fakeroot -- $(BUILD_DIR)/fs/fakeroot
	$(foreach hook,$(ROOTFS_SQUASHFS_POST_GEN_HOOKS),$(call $(hook))$(sep))

.PHONY: FORCE world source %-legal-info kernel-fixups
world: $(BINARIES_DIR)/rootfs.squashfs
source: $(firstword $(STAMPS))

%-legal-info:
	mkdir -p $(O)/legal-info
	$(foreach hook,$($(PKG)_POST_LEGAL_INFO_HOOKS),$(call $(hook))$(sep))

kernel-fixups:
	$(SHIPLAP_IMAGES_LINUX_CONFIG_FIXUPS)
	$(HOST_PYTHON_SHIPLAP_LINUX_CONFIG_FIXUPS)
