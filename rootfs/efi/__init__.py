"""What UEFI boots from: a FAT file system, and one program made of a stub, kernel, initramfs and command line."""
