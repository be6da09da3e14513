# Written by `shiplap generate`: change the manifest and generate again.
include $(BR2_EXTERNAL_SHIPLAP_GATEWAY_PATH)/fs/squashfs/squashfs.mk
include $(sort $(wildcard $(BR2_EXTERNAL_SHIPLAP_GATEWAY_PATH)/package/*/*.mk))
