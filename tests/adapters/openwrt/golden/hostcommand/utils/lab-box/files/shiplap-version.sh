#!/bin/sh
# Written by `shiplap generate openwrt`. shiplap-version.sh WANTED: 0 when the shiplap of PATH is that or a newer one.
set -e
found=$(shiplap --version)
found=${found#shiplap }
oldest=$(printf '%s\n%s\n' "$1" "$found" | sort -V | head -n 1)
[ "$oldest" = "$1" ]
