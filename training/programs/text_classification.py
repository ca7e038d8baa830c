"""The program `text-classification`: fine-tunes transformers models on labelled texts."""
