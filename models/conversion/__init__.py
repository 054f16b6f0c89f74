"""Foreign checkpoints to ours: readers.py reads any format, names.py makes the arrays ours, identification.py tells
which network they are of; downloads.py brings the published ones, publishing.py sends ours. convert.py calls load,
fetch and publish.
"""
