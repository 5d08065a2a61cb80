"""The floor that training and judging stand on: config, files, pictures, brand sets, model families."""

__version__ = "0.1.0"
