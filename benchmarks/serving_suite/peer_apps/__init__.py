"""The same job written for each peer, as its documentation shows it: rows in, the model's output out."""
