"""A client of registries: OCI distribution specification, Docker's token authentication, containers' configuration files."""
