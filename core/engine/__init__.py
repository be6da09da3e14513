"""Container engines that run: where they listen, and what they are asked."""
