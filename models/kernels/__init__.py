"""The fast forms behind layers.py, not for a first reading.

blas: a real BLAS under MLX; convolution, winograd, pooling, relu: what the layers call; arrays: what those share;
bands: a part of an image a core; inception: a module, in one; gpu, blocks, compilation: what GPUs need.
"""

import os

os.environ.setdefault("MLX_CUDA_CONV_CACHE_SIZE", "2048")  # plans; five octaves need 275 of the 128 that MLX keeps
