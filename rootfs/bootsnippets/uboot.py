"""U-Boot: a boot script, the choice between two slots, and a FIT that carries the script together with kernel and initramfs.

The variables of U-Boot's environment are those that the snippets for Mender and SWUpdate set: ``bootslot``, ``upgrade_available``,
``bootcount``. A signature of a FIT covers a configuration: kernel, initramfs and device tree, and no script (doc/uImage.FIT/signature.txt;
``source`` compares the script's own hash only). So where a signed FIT is to anchor the root hash, that stands in the device tree.
"""

from __future__ import annotations

from shiplap.rootfs.bootsnippets.kernel import systemd_cmdline
from shiplap.rootfs.bootsnippets.settings import BootSettings

# GOARCH → U-Boot's name. Where there is none, the FIT has to be adapted by hand.
_ARCHITECTURES = {"amd64": "x86_64", "386": "x86", "arm": "arm", "arm64": "arm64", "mipsle": "mips", "mips64le": "mips", "riscv64": "riscv"}
# Their kernels run wherever they are put, and U-Boot finds the place.
_PLACED_BY_UBOOT = ("arm", "arm64")


def render(settings: BootSettings) -> dict[str, str]:
    """``boot.cmd`` and ``boot-slots.cmd`` (for ``mkimage -T script``) and ``fit.its`` (for ``mkimage -f``)."""
    return {"boot.cmd": _script(settings), "boot-slots.cmd": _SLOTS, "fit.its": _fit(settings)}


_FIT_ADDRESS = 'test -n "${fit_addr_r}" || setenv fit_addr_r ${ramdisk_addr_r}'
_LOAD = "load ${devtype} ${devnum}:${distro_bootpart} ${fit_addr_r} ${folder}/image.itb"


def _script(settings: BootSettings) -> str:
    """Without ``console=`` the kernel takes the device tree's stdout-path."""
    return f"""\
# U-Boot, this firmware. Where it goes: on the partition that distro boot looks into, beside /image.itb (made of fit.its), as /boot.scr:
#   mkimage -T script -C none -n shiplap -d boot.cmd boot.scr
# With two slots it only goes into the FIT, see boot-slots.cmd. The initramfs has systemd (dracut, mkosi) or reads roothash= itself.
# Nothing to edit where U-Boot's environment has: console, as in ttyS0,115200 (without it the device tree's stdout-path counts); fit_addr_r,
# where the FIT is loaded to (ramdisk_addr_r, if it is not set): behind it there has to be room for the FIT, before it for the kernel.
{_FIT_ADDRESS}
setenv consoleword
test -z "${{console}}" || setenv consoleword console=${{console}}
setenv bootargs "${{consoleword}} {systemd_cmdline(settings)}"
# boot-slots.cmd has loaded it.
test -n "${{folder}}" || {_LOAD}
bootm ${{fit_addr_r}}#shiplap
"""


_SLOTS = f"""\
# U-Boot, two slots (`--slots 2`). Where it goes: on the partition that distro boot looks into, as /boot.scr; updates leave it alone:
#   mkimage -T script -C none -n shiplap -d boot-slots.cmd boot.scr
# Beside it: /a/image.itb and /b/image.itb, made of the fit.its and the boot.cmd of the firmware in that slot. The update brings the new
# one, and writes it before it sets bootslot. Nothing to edit; fit_addr_r as in boot.cmd.
# An update sets bootslot to the new slot, upgrade_available=1 and bootcount=0 (mender-module, sw-description); who confirms it sets
# upgrade_available=0. U-Boot needs an environment that can be saved. CONFIG_BOOTCOUNT_LIMIT stays off: the count is here.
if test "${{bootslot}}" != b; then setenv bootslot a; fi
if test "${{upgrade_available}}" = 1; then
    if test "${{bootcount}}" = 1; then
        # It was tried once and not confirmed.
        if test "${{bootslot}}" = a; then setenv bootslot b; else setenv bootslot a; fi
        setenv upgrade_available 0
        setenv bootcount 0
    else
        setenv bootcount 1
    fi
    saveenv
fi
{_FIT_ADDRESS}
setenv folder /${{bootslot}}
{_LOAD}
source ${{fit_addr_r}}:script
# It did not even start.
if test "${{upgrade_available}}" = 1; then reset; fi
"""


def _fit(settings: BootSettings) -> str:
    architecture = _ARCHITECTURES.get(settings.architecture, settings.architecture)
    if settings.architecture in _PLACED_BY_UBOOT:
        kernel_type, address = "kernel_noload", "0"
    else:
        kernel_type, address = "kernel", "0x80080000"
    return f"""\
/dts-v1/;

/*
 * Beside this file: kernel (arm64: Image, arm: zImage; others: as U-Boot's bootm takes it, and load and entry are the board's), initrd.img,
 * board.dtb, boot.cmd. Then
 *   mkimage -f fit.its image.itb
 *
 * Signed: a signature is one of kernel, ramdisk and fdt together, and of no script. So put the command line into the device tree, and let
 * U-Boot's bootcmd start the FIT without boot.cmd and without bootargs:
 *   fdtput -t s board.dtb /chosen bootargs "console=ttyS0,115200 $(cat kernel-cmdline.txt)"
 *   mkimage -f fit.its -k KEYS -K u-boot.dtb -r image.itb     (KEYS/shiplap.key, KEYS/shiplap.crt; U-Boot's tree gets the public key)
 *   setenv bootcmd 'setenv bootargs; load mmc 0:1 ${{fit_addr_r}} /image.itb && bootm ${{fit_addr_r}}#shiplap'
 * The board has to protect U-Boot, its environment and its console: whoever sets bootargs chooses the root.
 */
/ {{
	description = "Firmware {settings.root.root_hash}";
	#address-cells = <1>;

	images {{
		kernel {{
			description = "Linux";
			data = /incbin/("kernel");
			type = "{kernel_type}";
			arch = "{architecture}";
			os = "linux";
			compression = "none";
			load = <{address}>;
			entry = <{address}>;
			hash {{
				algo = "sha256";
			}};
		}};

		ramdisk {{
			description = "initramfs that opens the root by its root hash";
			data = /incbin/("initrd.img");
			type = "ramdisk";
			arch = "{architecture}";
			os = "linux";
			compression = "none";
			hash {{
				algo = "sha256";
			}};
		}};

		fdt {{
			description = "device tree";
			data = /incbin/("board.dtb");
			type = "flat_dt";
			arch = "{architecture}";
			compression = "none";
			hash {{
				algo = "sha256";
			}};
		}};

		script {{
			description = "boot script with the root hash";
			data = /incbin/("boot.cmd");
			type = "script";
			arch = "{architecture}";
			compression = "none";
			hash {{
				algo = "sha256";
			}};
		}};
	}};

	configurations {{
		default = "shiplap";

		shiplap {{
			description = "root {settings.root.root_hash[:12]}";
			kernel = "kernel";
			ramdisk = "ramdisk";
			fdt = "fdt";
			signature {{
				algo = "sha256,rsa2048";
				key-name-hint = "shiplap";
				sign-images = "kernel", "ramdisk", "fdt";
			}};
		}};
	}};
}};
"""
