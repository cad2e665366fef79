"""Sources: where layers and their data come from."""
