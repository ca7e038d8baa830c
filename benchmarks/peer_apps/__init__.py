"""The same tiny job written for each peer, as its documentation shows it: rows of floats in, the model's answer out."""
