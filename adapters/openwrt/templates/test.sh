#!/bin/sh

# shellcheck shell=busybox disable=SC1091

case "$1" in
@NAME@)
	. /etc/shiplap/store.conf
	# The file that the firmware will hold against its hash.
	echo "$SHA256  @STORE_PATH@/@ARTIFACT@" | sha256sum -c - || exit 1
	sh -n /usr/sbin/shiplap-target
	;;
*)
	echo "Untested package: $1" >&2
	exit 1
	;;
esac
