"""Measuring pictures: the encoder, the features of each picture (computed once), and the columns of scores."""
