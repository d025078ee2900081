"""The training of a reranker: the classifier of the slots of texts, on the pairs that a recipe trains its model on.

Needs the extra `train`.
"""

import logging
import tempfile
from collections.abc import Sequence

from transformers import DataCollatorWithPadding, PreTrainedTokenizerFast, Trainer, TrainingArguments, set_seed

from ..data.files import DataError
from ..data.preprocessing import Preprocessing
from ..data.splits import Dataset
from ..evaluation.reranker import SlotReranker, slots_of
from ..model.configuration_rnn_seq2seq import RnnSeq2SeqConfig
from ..model.modeling_classification import RnnSeq2SeqForSequenceClassification
from .other_models import RerankerOptions


logger = logging.getLogger(__name__)


def train_reranker(
    sources: Sequence[str],
    targets: Sequence[str],
    tokenizer: PreTrainedTokenizerFast,
    preprocessing: Preprocessing,
    options: RerankerOptions,
    seed: int = 0,
    use_cpu: bool = False,
) -> SlotReranker:
    """Train a classifier of the slots of targets, which are those of their sources.

    Args:
        sources, targets: pairs, the sources as `preprocessing.text` gave them.
        tokenizer: of the targets.
        preprocessing: the placeholders of values, which the classifier reads, too.
        options: what a slot is, and how long is trained.
        seed: of weights, dropout and order.
        use_cpu: leave accelerators alone.

    Raises:
        DataError: no two slots are found in the sources.
    """
    wanted = slots_of(sources, options.slots, preprocessing)
    labels = sorted(frozenset().union(*wanted))
    if len(labels) < 2:
        raise DataError(
            f"evaluation.reranker.slots: {options.slots!r} finds {labels or 'nothing'} in the training sources, such "
            f"as {preprocessing.delexicalised(sources[:1])[0]!r}; wanted at least two different slots"
        )
    texts = preprocessing.delexicalised(sources, targets)
    pairs = sorted({(text, slots) for text, slots in zip(texts, wanted) if text.strip()}, key=lambda pair: pair[0])
    rows = [
        {"input_ids": tokenizer(text)["input_ids"], "labels": [float(label in slots) for label in labels]}
        for text, slots in pairs
    ]
    set_seed(seed)
    config = RnnSeq2SeqConfig(
        vocab_size=len(tokenizer),
        **{name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")},
        rnn_type="gru",
        embedding_size=options.hidden_size // 2,
        encoder_hidden_size=options.hidden_size,
        encoder_layers=1,
        bidirectional_encoder=True,
        hidden_dropout=0.2,
        classifier_pooling="max",
        problem_type="multi_label_classification",
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    model = RnnSeq2SeqForSequenceClassification(config)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            num_train_epochs=options.num_train_epochs,
            per_device_train_batch_size=64,
            train_sampling_strategy="group_by_length",
            learning_rate=3e-3,
            lr_scheduler_type="cosine",
            warmup_steps=0.05,
            max_grad_norm=1.0,
            seed=seed,
            use_cpu=use_cpu,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(model, arguments, DataCollatorWithPadding(tokenizer), Dataset.from_list(rows))
        logger.info("reranker: trained on %d different texts with %d slots", len(rows), len(labels))
        trainer.train()
    model.cpu()
    return SlotReranker(model.eval(), tokenizer, options.slots, options.penalty, preprocessing)
