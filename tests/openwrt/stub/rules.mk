# A clean-room stand-in for OpenWrt's rules.mk: the names that a package uses, for the feed's own Makefile.
-include $(TOPDIR)/.config
INCLUDE_DIR:=$(TOPDIR)/include
DL_DIR:=$(TOPDIR)/dl
BIN_DIR:=$(TOPDIR)/bin
TMP_DIR:=$(TOPDIR)/tmp
BUILD_DIR:=$(TOPDIR)/build_dir
INSTALL_DIR:=install -d -m0755
INSTALL_DATA:=install -m0644
INSTALL_BIN:=install -m0755
INSTALL_CONF:=install -m0600
CP:=cp -fpR
TAR:=tar
SED:=sed -i -e
qstrip=$(subst ",,$(strip $(1)))
export TOPDIR
