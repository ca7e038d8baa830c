"""The model server: many models in one container, loaded and unloaded while it serves."""
