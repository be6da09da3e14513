################################################################################
#
# python-shiplap
#
################################################################################

PYTHON_SHIPLAP_VERSION = 0.1.0
PYTHON_SHIPLAP_SOURCE = shiplap-0.1.0.tar
PYTHON_SHIPLAP_SITE = $(BR2_EXTERNAL_SHIPLAP_GATEWAY_PATH)/package/python-shiplap
PYTHON_SHIPLAP_SITE_METHOD = file
PYTHON_SHIPLAP_SETUP_TYPE = pep517
PYTHON_SHIPLAP_LICENSE = MIT
PYTHON_SHIPLAP_LICENSE_FILES = LICENSE
# hatchling by name: the type "hatch" is younger than 2024.02.
# At run time: PyYAML, libarchive, and the libraries that compress.
HOST_PYTHON_SHIPLAP_DEPENDENCIES = \
	host-lz4 \
	host-python-hatchling \
	host-python-libarchive-c \
	host-python-pyyaml \
	host-zstd

# With the module, not the script: its first line would have to be the
# right one in each per-package directory.
HOST_PYTHON_SHIPLAP_COMMAND = \
	$(HOST_MAKE_ENV) \
	LD_LIBRARY_PATH="$(HOST_DIR)/lib" \
	LIBARCHIVE="$(HOST_DIR)/lib/libarchive.so" \
	PYTHONDONTWRITEBYTECODE=1 \
	PYTHONNOUSERSITE=1 \
	$(HOST_DIR)/bin/python3 -P -m shiplap.cli --progress plain

# Of the hash tree of the root filesystem, when there is one.
HOST_PYTHON_SHIPLAP_LINUX_CONFIG_FIXUPS = $(ROOTFS_SQUASHFS_VERITY_LINUX_CONFIG_FIXUPS)

$(eval $(host-python-package))
