"""The policy: what a picture and a lot must reach, as a file and as numbers."""
