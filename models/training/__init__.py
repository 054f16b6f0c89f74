"""Fine-tuning: freezing.py says what learns, step.py how, batches.py shares a batch, checkpoints.py keeps a run.

train_dream.py calls new_network, transfer, learned_paths, freeze, training_step, evaluate, write and restore.
"""
