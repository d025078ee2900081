"""The Trainer, its batches and checkpoints, teacher forcing and augmentation."""
