"""The parts of the program image-classification: its settings, networks, augmentation, losses and log lines."""
