"""The main job on real input: handwritten digits in at one end, a multi-model endpoint at the other."""
