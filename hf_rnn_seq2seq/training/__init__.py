"""The Trainer, its batches and checkpoints, teacher forcing and augmentation."""

from ..data.doors import door


__all__, __getattr__ = door(
    __name__,
    {
        "trainer": "RecipeTrainer TrainingClock",
        "batches": "TokenBudgetBatchSampler ArrayRows pad_rows pad_value_rows",
        "teacher_forcing": "ScheduledSamplingCallback TeacherForcingOptions teacher_forcing_ratio",
        "augmentation": "BpeDropout SpecAugmentOptions spec_augment",
        "checkpoints": "average_checkpoints checkpoints_of rank_checkpoints",
    },
)
