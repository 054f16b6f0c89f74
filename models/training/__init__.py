"""Fine-tuning: transfer.py makes the network, freezing.py says what of it learns, step.py how, distributed.py over many
processes; loaders.py serves batches, evaluation.py measures, run.py and checkpoints.py keep a run on disk, options.py
is the command line. train_dream.py tells the story."""
