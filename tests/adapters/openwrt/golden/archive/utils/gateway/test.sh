#!/bin/sh

# shellcheck shell=busybox disable=SC1091

case "$1" in
gateway)
	. /etc/shiplap/store.conf
	# The file that the firmware will hold against its hash.
	echo "$SHA256  /usr/share/shiplap/images.tar.zst" | sha256sum -c - || exit 1
	sh -n /usr/sbin/shiplap-target
	;;
*)
	echo "Untested package: $1" >&2
	exit 1
	;;
esac
