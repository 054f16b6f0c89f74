"""What dreaming is made of: targets and objectives, gradients and tiles, visualisation, presets, options, recipes.

The scripts call parse_targets, objective_function, gradient_transform, in_tiles, visualize and the option table.
"""
