# Written by `shiplap generate yocto`: an image to begin with. Your own one needs the lines about shiplap only.
SUMMARY = "Small image with the containers of @NAME@"
DESCRIPTION = "core-image with a container store; its engine comes from the layer that has it."
LICENSE = "MIT"

inherit core-image @CLASSES@

IMAGE_INSTALL:append = " @STORE@"
SHIPLAP_STORES = "@STORE@"
@PLACEMENT@
