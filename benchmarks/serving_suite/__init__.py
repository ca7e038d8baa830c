"""The server against its peers: every row of the table of targets that concerns serving, in one interleaved run."""
