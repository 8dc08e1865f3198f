"""What the emulator imitates and how it is set up: services, dialects, settings."""
