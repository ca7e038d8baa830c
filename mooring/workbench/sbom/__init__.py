"""What an image or environment holds, as a bill of materials or a list of licences.

Files are read, nothing of the image is run. cyclonedx-python-lib and what it brings are imported here and nowhere else.
"""
