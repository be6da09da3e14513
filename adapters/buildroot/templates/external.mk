# Written by `shiplap generate`: change the manifest and generate again.
include $(BR2_EXTERNAL_@EXTERNAL@_PATH)/fs/squashfs/squashfs.mk
include $(sort $(wildcard $(BR2_EXTERNAL_@EXTERNAL@_PATH)/package/*/*.mk))
