# Written by `shiplap generate yocto`: an image to begin with. Your own one needs the lines about shiplap only.
SUMMARY = "Small image with the containers of edge_box"
DESCRIPTION = "core-image with a container store; its engine comes from the layer that has it."
LICENSE = "MIT"

inherit core-image shiplap_image shiplap_verity

IMAGE_INSTALL:append = " edge-box-store"
SHIPLAP_STORES = "edge-box-store"

IMAGE_FSTYPES = "wic"
WKS_FILE = "edge-box.wks.in"
