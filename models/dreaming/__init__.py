"""What dreaming is made of: targets, objectives, octaves, tiles, gradients, visualisation; options, presets, recipes.

The scripts call parse_targets, objective_function, gradient_transform, in_tiles, visualize, settings and make_recipe.
"""
