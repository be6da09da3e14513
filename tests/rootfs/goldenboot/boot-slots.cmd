# U-Boot, two slots (`--slots 2`). Where it goes: on the partition that distro boot looks into, as /boot.scr; updates leave it alone:
#   mkimage -T script -C none -n shiplap -d boot-slots.cmd boot.scr
# Beside it: /a/image.itb and /b/image.itb, made of the fit.its and the boot.cmd of the firmware in that slot. The update brings the new
# one, and writes it before it sets bootslot. Nothing to edit; fit_addr_r as in boot.cmd.
# An update sets bootslot to the new slot, upgrade_available=1 and bootcount=0 (mender-module, sw-description); who confirms it sets
# upgrade_available=0. U-Boot needs an environment that can be saved. CONFIG_BOOTCOUNT_LIMIT stays off: the count is here.
if test "${bootslot}" != b; then setenv bootslot a; fi
if test "${upgrade_available}" = 1; then
    if test "${bootcount}" = 1; then
        # It was tried once and not confirmed.
        if test "${bootslot}" = a; then setenv bootslot b; else setenv bootslot a; fi
        setenv upgrade_available 0
        setenv bootcount 0
    else
        setenv bootcount 1
    fi
    saveenv
fi
test -n "${fit_addr_r}" || setenv fit_addr_r ${ramdisk_addr_r}
setenv folder /${bootslot}
load ${devtype} ${devnum}:${distro_bootpart} ${fit_addr_r} ${folder}/image.itb
source ${fit_addr_r}:script
# It did not even start.
if test "${upgrade_available}" = 1; then reset; fi
