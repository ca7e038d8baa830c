"""What the program `text-classification` is made of, besides its loop."""
