"""What runs on the device: scripts, units and their configuration, as files for the root file system."""
