"""The fast forms behind layers.py, not for a first reading.

blas: a real BLAS under MLX; convolution, pooling, relu: what the layers call; arrays: what those share.
"""
