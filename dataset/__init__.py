"""Images and videos in and out: reading files, an ImageFolder, and batches of it decoded in worker processes.

    from dataset import Augmentation, Loader, read_folder

    train, val = read_folder("dataset/insects", val=0.2, seed=0)     # insects/<class>/*.jpg, or its train/ and val/
    train.classes, len(train), train.counts                          # names in order, pictures, pictures a class

    with Loader(train, 32, size=224, augmentation=Augmentation(rotation=5, colour=0.1), seed=0) as loader:
        for epoch in range(10):
            for images, labels in loader.epoch(epoch):               # float32 (32, 224, 224, 3) RGB 0..255; int32 (32,)
                ...
        loader.data_seconds                                           # seconds spent waiting for batches so far

    with Loader(val, 32, size=224) as loader:                        # no augmentation: every picture once, in order,
        for images, labels in loader.epoch():                        # shorter side resized, centre cropped
            ...

The same seed, epoch and files give the same batches, whatever the number of workers; `loader.epoch(3, start=17)`
resumes before batch 17 of epoch 3. A picture that cannot be read is reported once, in one line: in training the next
one of the epoch's order takes its place, in evaluation its batch is smaller. Nothing here imports mlx.

One file each: images.py reads and writes images, folder.py finds them, augment.py changes them, loader.py makes
batches, workers.py runs the processes, and prepare.py is the script that cleans a folder before training. Your own
folders of pictures may lie in here, too.
"""

from dataset import startup  # noqa: F401, I001  (before the imports below, in the midst of which Ctrl-C may come)

from dataset.augment import Augmentation, center_crop
from dataset.folder import ImageFolder, find_images, read_folder
from dataset.loader import Loader

__all__ = ["Augmentation", "ImageFolder", "Loader", "center_crop", "find_images", "read_folder"]
