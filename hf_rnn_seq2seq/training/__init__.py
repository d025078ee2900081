"""The Trainer, its batches and checkpoints, teacher forcing and augmentation."""

from importlib import import_module
from typing import Any


_PUBLIC = {  # public name -> the file that defines it
    "RecipeTrainer": "trainer",
    "TrainingClock": "trainer",
    "TokenBudgetBatchSampler": "batches",
    "ArrayRows": "batches",
    "pad_rows": "batches",
    "pad_value_rows": "batches",
    "ScheduledSamplingCallback": "teacher_forcing",
    "TeacherForcingOptions": "teacher_forcing",
    "teacher_forcing_ratio": "teacher_forcing",
    "BpeDropout": "augmentation",
    "SpecAugmentOptions": "augmentation",
    "spec_augment": "augmentation",
    "average_checkpoints": "checkpoints",
    "checkpoints_of": "checkpoints",
    "rank_checkpoints": "checkpoints",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: each file may need another extra."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
