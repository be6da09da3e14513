"""U-Boot: the text of a boot script, and a FIT that carries it together with kernel and initramfs.

The root hash stands in the script, the script in the FIT: a signed FIT anchors the whole chain.
"""

from __future__ import annotations

from shiplap.rootfs.bootsnippets.kernel import systemd_cmdline
from shiplap.rootfs.bootsnippets.settings import BootSettings

# GOARCH → U-Boot's name. Where there is none, the FIT has to be adapted by hand.
_ARCHITECTURES = {"amd64": "x86_64", "386": "x86", "arm": "arm", "arm64": "arm64", "mipsle": "mips", "mips64le": "mips", "riscv64": "riscv"}


def render(settings: BootSettings) -> dict[str, str]:
    """``boot.cmd`` (for ``mkimage -T script``) and ``fit.its`` (for ``mkimage -f``)."""
    return {"boot.cmd": _script(settings), "fit.its": _fit(settings)}


def _script(settings: BootSettings) -> str:
    return f"""\
# mkimage -T script -C none -n shiplap -d boot.cmd boot.scr
# Expects: devtype, devnum, distro_bootpart (as distro boot sets them) and the FIT as /image.itb.
test -n "${{console}}" || setenv console ttyS0,115200
setenv bootargs "console=${{console}} {systemd_cmdline(settings)}"
load ${{devtype}} ${{devnum}}:${{distro_bootpart}} ${{loadaddr}} /image.itb
bootm ${{loadaddr}}#shiplap
"""


def _fit(settings: BootSettings) -> str:
    architecture = _ARCHITECTURES.get(settings.architecture, settings.architecture)
    return f"""\
/dts-v1/;

/* Put kernel, initrd.img and board.dtb beside this file; addresses are the board's. */
/ {{
	description = "Firmware {settings.root.root_hash}";
	#address-cells = <1>;

	images {{
		kernel {{
			description = "Linux";
			data = /incbin/("kernel");
			type = "kernel";
			arch = "{architecture}";
			os = "linux";
			compression = "none";
			load = <0x80080000>;
			entry = <0x80080000>;
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
			description = "boot script with the root hash: source ${{loadaddr}}:script";
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
		}};
	}};
}};
"""
