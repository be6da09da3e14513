"""The provisioning medium: an image that, booted on a device, installs the device's disk."""
