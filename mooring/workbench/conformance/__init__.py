"""What the platform asks of an image, row by row, each tried on the image itself by really starting it."""
