"""Foreign checkpoints to ours: formats.py reads any format by a reader of its own, state_dict.py gives the arrays our
names and layout and tells which network they are of; downloads.py brings the published ones, publishing.py sends ours.
convert.py calls state_dict.load, downloads.fetch and publishing.publish.
"""
