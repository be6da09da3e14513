# U-Boot, this firmware. Where it goes: on the partition that distro boot looks into, beside /image.itb (made of fit.its), as /boot.scr:
#   mkimage -T script -C none -n shiplap -d boot.cmd boot.scr
# With two slots it only goes into the FIT, see boot-slots.cmd. The initramfs has systemd (dracut, mkosi) or reads roothash= itself.
# Nothing to edit where U-Boot's environment has: console, as in ttyS0,115200 (without it the device tree's stdout-path counts); fit_addr_r,
# where the FIT is loaded to (ramdisk_addr_r, if it is not set): behind it there has to be room for the FIT, before it for the kernel.
test -n "${fit_addr_r}" || setenv fit_addr_r ${ramdisk_addr_r}
setenv consoleword
test -z "${console}" || setenv consoleword console=${console}
setenv bootargs "${consoleword} roothash=ababababababababababababababababcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd systemd.verity_root_data=PARTUUID=abababab-abab-abab-abab-abababababab systemd.verity_root_hash=PARTUUID=cdcdcdcd-cdcd-cdcd-cdcd-cdcdcdcdcdcd rootfstype=squashfs ro"
# boot-slots.cmd has loaded it.
test -n "${folder}" || load ${devtype} ${devnum}:${distro_bootpart} ${fit_addr_r} ${folder}/image.itb
bootm ${fit_addr_r}#shiplap
