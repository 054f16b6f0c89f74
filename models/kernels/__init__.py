"""The fast forms behind layers.py, not for a first reading.

blas: a real BLAS under MLX; convolution, pooling, relu: what the layers call; arrays: what those share;
bands: one part of an image a core; gpu, inception, blocks, compilation: what GPUs need.
"""

import os

os.environ.setdefault("MLX_CUDA_CONV_CACHE_SIZE", "2048")  # plans; five octaves need 275 of the 128 that MLX keeps
