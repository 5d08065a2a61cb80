"""The policy: what a picture and a lot must hold, as a file and as numbers."""
