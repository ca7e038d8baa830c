"""Training: the launcher behind `train`, and what a training script imports. Names load when they are first used."""
