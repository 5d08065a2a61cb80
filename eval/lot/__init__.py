"""A lot: the pictures that are judged together, and what they are compared with."""
