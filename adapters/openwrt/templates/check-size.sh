#!/bin/sh
# Written by `shiplap generate openwrt`. check-size.sh FILE MIB: OpenWrt itself cuts off, or writes over, what is larger.
set -e
bytes=$(wc -c <"$1")
room=$(($2 * 1024 * 1024))
[ "$bytes" -le "$room" ] || {
	echo "${1##*/} has $bytes bytes, CONFIG_TARGET_ROOTFS_PARTSIZE=$2 is $room: $((bytes - room)) too many" >&2
	exit 1
}
