# mkimage -T script -C none -n shiplap -d boot.cmd boot.scr
# Expects: devtype, devnum, distro_bootpart (as distro boot sets them) and the FIT as /image.itb.
test -n "${console}" || setenv console ttyS0,115200
setenv bootargs "console=${console} roothash=ababababababababababababababababcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd systemd.verity_root_data=PARTUUID=abababab-abab-abab-abab-abababababab systemd.verity_root_hash=PARTUUID=cdcdcdcd-cdcd-cdcd-cdcd-cdcdcdcdcdcd rootfstype=squashfs ro"
load ${devtype} ${devnum}:${distro_bootpart} ${loadaddr} /image.itb
bootm ${loadaddr}#shiplap
