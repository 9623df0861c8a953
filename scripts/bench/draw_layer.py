"""Writes one F32 layer with Student-t entries (3 degrees of freedom): draw_layer.py ROWS COLUMNS SEED FILE."""

import sys

import numpy
from safetensors.numpy import save_file

rows, columns, seed = (int(argument) for argument in sys.argv[1:4])
generator = numpy.random.default_rng(seed)
weights = (0.02 * generator.standard_t(3, size=(rows, columns))).astype("float32")
save_file({"layer.weight": weights}, sys.argv[4])
