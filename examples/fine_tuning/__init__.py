"""Fine-tuning a classifier of texts with the program `text-classification`."""
