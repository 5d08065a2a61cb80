"""Measuring pictures: the encoder, features taken once a picture, the columns of scores."""
