"""An engine's on-disk image storage, written without the engine."""
