"""Floor 3: what a person does around training and serving: start a project, package a model, push an image, run it."""
