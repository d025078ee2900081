"""What `RnnSeq2SeqConfig` refuses: unknown names, values out of range, options that contradict each other.

Each rule is one row of a table; its message names the options with their values, and says what to change. An unknown
name is refused where a user makes a configuration, and kept, with one warning, where a saved one is read: there it is
a note of the user's (`config.language_pair = "de-en"`) or an option of another version. So is an option that changes
nothing.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from transformers.generation import GenerationConfig
from transformers.utils import logging

from .special_ids import as_list


logger = logging.get_logger(__name__)

# What PreTrainedConfig itself takes beside its fields.
_FOREIGN_KEYWORDS = frozenset(
    "_name_or_path _commit_hash _output_attentions _attn_implementation _attn_implementation_internal "
    "_experts_implementation _experts_implementation_internal attn_implementation auto_map custom_pipelines "
    "finetuning_task model_type name_or_path num_labels output_attentions per_layer_config quantization_config "
    "task_specific_params tie_encoder_decoder tie_last_hidden_states tokenizer_class torch_dtype torchscript "
    "use_return_dict cross_attention_hidden_size add_cross_attention is_decoder prefix".split()
)


# The pipeline of the models that generate.
GENERATION_TASK = "seq2seq-generation"


def without_own_pipelines(options: dict[str, Any]) -> dict[str, Any]:
    """Return options of a configuration without the entry of this family's pipeline."""
    pipelines = {name: at for name, at in (options.get("custom_pipelines") or {}).items() if name != GENERATION_TASK}
    options = {name: value for name, value in options.items() if name != "custom_pipelines"}
    return {**options, "custom_pipelines": pipelines} if pipelines else options


def check_names(config: Any, names: dict[str, Any]) -> None:
    """
    Refuse an unknown name of what is no field of the configuration, unless it is read from what was saved: that, be it
    in another configuration, names its type or the version that wrote it; a user does not.
    """
    for name, right, wanted in (
        ("num_labels", lambda n: isinstance(n, int) and n >= 1, "a whole number, at least 1"),
        ("id2label", lambda names: isinstance(names, dict), "a dictionary from numbers to names"),
        ("label2id", lambda names: isinstance(names, dict), "a dictionary from names to numbers"),
    ):
        value = names.get(name, getattr(config, name, None) if name != "num_labels" else None)
        if value is not None and not right(value):
            raise ValueError(f"{name} is {value!r}, wanted {wanted}")
    known = {*_FOREIGN_KEYWORDS, *GenerationConfig._get_default_generation_params(), *config.attribute_map}
    unknown = [name for name in names if name not in known]
    if not unknown:
        return
    kind, options = type(config).__name__, list(type(config).__dataclass_fields__)
    near = {name: difflib.get_close_matches(name, options, n=1) for name in unknown}
    if "model_type" in names or config.transformers_version is not None:
        told = ", ".join(repr(name) + (f" (near {near[name][0]!r})" if near[name] else "") for name in unknown)
        logger.warning(f"{kind} has no option {told}: kept as an attribute, without effect on the model")
        return
    hint = f"; did you mean {near[unknown[0]][0]!r}?" if near[unknown[0]] else ""
    raise ValueError(f"{kind} has no option {unknown[0]!r}{hint}")


# What a file may ask for before memory is touched: far beyond what is trained, so that a wrong or hostile one is told.
_MOST = {
    **dict.fromkeys("vocab_size decoder_vocab_size character_vocab_size".split(), 2**24),
    **dict.fromkeys(
        "embedding_size encoder_hidden_size decoder_hidden_size input_feature_size character_embedding_size "
        "character_hidden_size attention_size readout_size num_mel_bins speech_decoder_postnet_units location_filters "
        "num_time_features num_static_real_features num_static_categorical_features".split(), 2**16),
    **dict.fromkeys(
        "encoder_layers decoder_layers speech_decoder_prenet_layers speech_decoder_postnet_layers reduction_factor "
        "time_reduction".split(), 128),
    **dict.fromkeys("location_width speech_decoder_postnet_kernel".split(), 2**12),
    "num_labels": 2**20,
    **dict.fromkeys("prediction_length context_length segment_length num_parallel_samples copy_slots".split(), 2**20),
}  # fmt: skip
_MOST_CLASSES = 2**24  # of a static feature

# (names of options, what holds of a value that is not None, the same in words)
_RANGES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("vocab_size decoder_vocab_size embedding_size encoder_hidden_size decoder_hidden_size encoder_layers "
     "decoder_layers input_feature_size character_vocab_size character_embedding_size character_hidden_size "
     "attention_size readout_size num_mel_bins reduction_factor speech_decoder_prenet_layers "
     "speech_decoder_postnet_units", lambda size: size >= 1, "at least 1"),
    ("token_dropout embedding_dropout hidden_dropout output_dropout recurrent_dropout label_smoothing "
     "classifier_dropout speech_decoder_prenet_dropout speech_decoder_postnet_dropout",
     lambda rate: 0 <= rate < 1, "at least 0 and less than 1"),
    ("prediction_length context_length segment_length num_parallel_samples", lambda size: size >= 1, "at least 1"),
    ("copy_slots location_filters speech_decoder_postnet_layers num_time_features num_static_real_features "
     "num_static_categorical_features", lambda count: count >= 0, "at least 0"),
    ("cardinality embedding_dimension", lambda sizes: all(1 <= size <= _MOST_CLASSES for size in sizes),
     f"1 to {_MOST_CLASSES} each"),
    ("location_width speech_decoder_postnet_kernel", lambda width: width >= 1 and width % 2, "an odd number"),
    ("guided_attention_loss_sigma", lambda x: 0 < x < float("inf"), "more than 0"),
    ("init_std coverage_loss_weight guided_attention_loss_scale stop_loss_weight",
     lambda x: 0 <= x < float("inf"), "a number that is not negative"),
    ("time_reduction", lambda n: n >= 1 and not n & (n - 1), "1, 2, 4, 8 or another power of two"),
    ("ctc_weight", lambda weight: 0 <= weight <= 1, "at least 0 and at most 1"),
)  # fmt: skip

# (names of options that cannot have these values together, when that is so, what is wrong and what to change)
Rule = tuple[str, Callable[[Any], Any], str]

# Options that only a model with `num_mel_bins` reads, with their defaults; of them those of the two nets.
_OF_PRENETS = {
    "speech_decoder_prenet_layers": 2, "speech_decoder_prenet_dropout": 0.5, "prenet_dropout_in_generation": True,
}  # fmt: skip
_OF_POSTNETS = {
    "speech_decoder_postnet_units": 256, "speech_decoder_postnet_kernel": 5, "speech_decoder_postnet_dropout": 0.5,
}  # fmt: skip
_OF_SPECTROGRAMS = {
    **_OF_PRENETS, **_OF_POSTNETS, "speech_decoder_postnet_layers": 0, "reduction_factor": 1, "stop_loss_weight": 1,
    "guided_attention_loss_scale": 0,
}  # fmt: skip
# The options of forecasting and their defaults: nothing else reads them.
FORECASTING = {
    "context_length": None, "distribution_output": "none", "segment_length": 1, "decode_at_once": False,
    "channel_independence": False, "window_normalization": "none", "num_time_features": 0,
    "num_static_real_features": 0, "num_static_categorical_features": 0, "num_parallel_samples": 100,
}  # fmt: skip

_PROBLEMS = (None, "regression", "single_label_classification", "multi_label_classification")
_CONTRADICTIONS: tuple[Rule, ...] = (
    ("problem_type", lambda c: c.problem_type not in _PROBLEMS, f"wanted one of {', '.join(map(str, _PROBLEMS))}"),
    ("encoder_hidden_size bidirectional_encoder", lambda c: c.bidirectional_encoder and c.encoder_hidden_size % 2,
     "an odd size cannot be split over two directions: make it even, or set bidirectional_encoder=False"),
    ("bridge_type encoder_hidden_size decoder_hidden_size",
     lambda c: c.bridge_type == "copy" and c.encoder_hidden_size != c.decoder_hidden_size,
     "to copy needs equal sizes: make them equal, or set bridge_type='linear' or 'mlp'"),
    ("context_feeding bridge_type",
     lambda c: c.context_feeding == "every_step" and c.bridge_type not in (None, "zeros"),
     "'every_step' starts the decoder from zeros: set context_feeding='both' to also set the first state, or "
     "bridge_type='zeros'"),
    ("context_feeding bridge_type", lambda c: c.context_feeding == "both" and c.bridge_type == "zeros",
     "'both' sets the decoder's first state from C: set context_feeding='every_step', or another bridge_type"),
    ("attention_type context_feeding bridge_type",
     lambda c: c.attention_type == "none" and c.context_feeding == "initial_state" and c.bridge_type == "zeros",
     "nothing of the input reaches the decoder: choose an attention_type, another bridge_type, or "
     "context_feeding='every_step'"),
    ("attention_type encoder_hidden_size decoder_hidden_size",
     lambda c: c.attention_type == "dot" and c.encoder_hidden_size != c.decoder_hidden_size,
     "the dot product needs equal sizes: make them equal, or set attention_type='general'"),
    ("attention_size attention_type", lambda c: c.attention_size is not None and c.attention_type != "additive",
     "only the additive score has this size: leave attention_size out, or set attention_type='additive'"),
    ("attention_query attention_type", lambda c: c.attention_query != "new_state" and c.attention_type == "none",
     "a query needs an attention: choose an attention_type, or leave attention_query out"),
    ("input_feeding attention_type", lambda c: c.input_feeding and c.attention_type == "none",
     "the attentional vector is fed: choose an attention_type, or set input_feeding=False"),
    ("input_feeding readout_type", lambda c: c.input_feeding and c.readout_type == "none",
     "the readout vector is fed: set readout_type='tanh', or input_feeding=False"),
    ("readout_size readout_type", lambda c: c.readout_size is not None and c.readout_type == "none",
     "there is no readout: leave readout_size out, or set readout_type='tanh'"),
    ("alignment_order attention_type", lambda c: c.alignment_order and not c.aligns,
     "only hard alignments have an order: set attention_type='hard_monotonic', or leave alignment_order out"),
    *((f"attention_type {name}", lambda c, name=name, value=value: c.aligns and getattr(c, name) != value,
       f"what sums over alignments has no context vector c_t and no weights of its own: leave {name} out, or choose "
       "another attention_type")
      for name, value in (("attention_query", "new_state"), ("input_feeding", False), ("copy_slots", 0),
                          ("coverage", False), ("readout_type", "tanh"), ("guided_attention_loss_scale", 0),
                          ("num_mel_bins", None), ("prediction_length", None))),
    ("use_copy attention_type", lambda c: c.use_copy and c.attention_type == "none",
     "to copy needs the weights of an attention: choose an attention_type, or set use_copy=False"),
    ("coverage attention_type", lambda c: c.coverage and c.attention_type == "none",
     "coverage adds up the weights of an attention: choose an attention_type, or set coverage=False"),
    ("use_copy decoder_vocab_size", lambda c: c.use_copy and c.decoder_vocab_size is not None,
     "source symbols are copied as they are: make one vocabulary for both sides and leave decoder_vocab_size out, or "
     "set use_copy=False"),
    ("copy_slots use_copy", lambda c: c.copy_slots > 0 and not c.use_copy,
     "slots are for words to copy: set use_copy=True, or copy_slots=0"),
    ("copy_slots unk_token_id", lambda c: c.copy_slots > 0 and c.unk_token_id is None,
     "slots are embedded as the unknown symbol: give an unk_token_id, or set copy_slots=0"),
    ("coverage_loss_weight coverage", lambda c: c.coverage_loss_weight != 1 and not c.coverage,
     "there is no coverage loss: set coverage=True, or leave coverage_loss_weight out"),
    ("location_filters coverage", lambda c: c.location_filters > 0 and not c.coverage,
     "the filters read the sum of the weights so far: set coverage=True, or location_filters=0"),
    ("location_width location_filters", lambda c: c.location_width != 31 and not c.location_filters,
     "there are no filters: set location_filters, or leave location_width out"),
    ("share_embeddings vocab_size decoder_vocab_size",
     lambda c: c.share_embeddings and c.target_vocab_size != c.vocab_size,
     "one table needs one vocabulary: leave decoder_vocab_size out, or set share_embeddings=False"),
    ("feed_previous_token share_embeddings tie_word_embeddings",
     lambda c: (c.share_embeddings or c.tie_word_embeddings) and not c.feed_previous_token,
     "the decoder has no embedding table to share or tie: set share_embeddings=False and tie_word_embeddings=False, "
     "or feed_previous_token=True"),
    # While a size is None, it is made to fit.
    ("tie_word_embeddings embedding_size readout_type readout_size decoder_hidden_size",
     lambda c: c.tie_word_embeddings and c.embedding_size
     != (c.decoder_hidden_size if c.readout_type == "none" else c.readout_size or c.embedding_size),
     "the output vector must be as wide as an embedding: set readout_type='tanh' with readout_size equal to "
     "embedding_size, or make the sizes equal"),
    ("time_reduction input_feature_size", lambda c: c.time_reduction > 1 and c.input_feature_size is None,
     "only a sequence of vectors is made shorter: give input_feature_size, or set time_reduction=1"),
    ("standardise_features input_feature_size", lambda c: c.standardise_features and c.input_feature_size is None,
     "there are no features, the input is symbols: give input_feature_size, or set standardise_features=False"),
    ("ctc_weight input_feature_size", lambda c: c.ctc_weight > 0 and c.input_feature_size is None,
     "CTC is for a model that reads vectors: give input_feature_size, or set ctc_weight=0"),
    ("ctc_weight pad_token_id", lambda c: c.ctc_weight > 0 and c.pad_token_id is None,
     "CTC needs a blank, which is pad_token_id: give one, or set ctc_weight=0"),
    *((f"{name} input_feature_size", lambda c, name=name: c.input_feature_size is not None and getattr(c, name),
       f"the input is vectors, without symbols: leave {name} out, or leave input_feature_size out")
      for name in ("share_embeddings", "use_copy", "character_vocab_size", "token_dropout")),
    *((f"{name} num_mel_bins", lambda c, name=name: c.num_mel_bins is not None and getattr(c, name),
       f"the output is vectors, without symbols: leave {name} out, or leave num_mel_bins out")
      for name in ("decoder_vocab_size", "share_embeddings", "tie_word_embeddings", "use_copy", "label_smoothing")),
    ("input_feature_size num_mel_bins", lambda c: c.num_mel_bins is not None and c.input_feature_size is not None,
     "what speaks reads symbols: leave input_feature_size out, or leave num_mel_bins out"),
    ("coverage_loss_weight num_mel_bins", lambda c: c.num_mel_bins is not None and c.coverage_loss_weight != 1,
     "what speaks stays on a symbol for many steps, there is no coverage loss: leave coverage_loss_weight out"),
    ("guided_attention_loss_scale attention_type",
     lambda c: c.guided_attention_loss_scale > 0 and c.attention_type == "none",
     "there is no attention to guide: choose an attention_type, or leave guided_attention_loss_scale out"),
    ("guided_attention_loss_sigma guided_attention_loss_scale",
     lambda c: c.guided_attention_loss_sigma != 0.4 and not c.guided_attention_loss_scale,
     "there is no guided attention loss: set guided_attention_loss_scale, or leave guided_attention_loss_sigma out"),
    *((f"{name} num_mel_bins", lambda c, name=name, default=default: c.num_mel_bins is None
       and getattr(c, name) != default,
       f"the output is symbols: give num_mel_bins, or leave {name} out")
      for name, default in _OF_SPECTROGRAMS.items()),
    *((f"{name} speech_decoder_postnet_layers", lambda c, name=name, default=default:
       c.speech_decoder_postnet_layers == 0 and getattr(c, name) != default,
       f"there is no post-net: set speech_decoder_postnet_layers, or leave {name} out")
      for name, default in _OF_POSTNETS.items()),
    *((f"{name} feed_previous_token", lambda c, name=name, default=default: not c.feed_previous_token
       and getattr(c, name) != default,
       f"the decoder does not read the vector before: set feed_previous_token=True, or leave {name} out")
      for name, default in _OF_PRENETS.items()),
    ("character_hidden_size", lambda c: c.character_vocab_size is not None and c.character_hidden_size % 2,
     "an odd size cannot be split over two directions: make it even"),
    ("pad_token_id character_vocab_size",
     lambda c: c.character_vocab_size is not None
     and (c.pad_token_id is None or c.pad_token_id >= c.character_vocab_size),
     "characters are padded with pad_token_id: give one that is in both vocabularies, or leave character_vocab_size "
     "out"),
    ("prediction_length input_feature_size",
     lambda c: c.prediction_length is not None and c.input_feature_size is None,
     "a forecaster reads vectors of values: give input_feature_size, the number of channels, or leave "
     "prediction_length out"),
    *((f"{name} prediction_length",
       lambda c, name=name, default=default: c.prediction_length is None and getattr(c, name) not in (default, None),
       f"only a forecaster has this: leave {name} out, or give a prediction_length")
      for name, default in FORECASTING.items()),
    *((f"{name} prediction_length",
       lambda c, name=name, value=value: c.prediction_length is not None and getattr(c, name) == value,
       f"a forecaster has no such thing: leave {name} out, or leave prediction_length out")
      for name, value in (("coverage", True), ("tie_word_embeddings", True), ("feed_previous_token", False),
                          ("standardise_features", True))),
    ("distribution_output window_normalization",
     lambda c: c.distribution_output == "negative_binomial" and c.window_normalization in ("last", "instance"),
     "counts stay counts: set window_normalization='mean' or 'none', or another distribution_output"),
    *((f"num_static_categorical_features {name}",
       lambda c, name=name: c.num_static_categorical_features != len(getattr(c, name) or ()),
       f"give {name} a number for each of them")
      for name in ("cardinality", "embedding_dimension")),
    ("token_dropout unk_token_id", lambda c: c.token_dropout > 0 and c.unk_token_id is None,
     "the unknown symbol is put in a symbol's place: give an unk_token_id, or set token_dropout=0"),
)  # fmt: skip

# Options that change nothing, since nothing reads what they make: a saved model may have them.
_WITHOUT_EFFECT: tuple[Rule, ...] = (
    ("readout_type attention_type attention_query use_copy",
     lambda c: c.attention_type != "none" and c.attention_query == "new_state" and c.readout_type == "none"
     and not c.use_copy,
     "nothing reads the attention: set readout_type='tanh' or 'maxout', attention_query='previous_state', or "
     "attention_type='none'"),
    ("context_vector bridge_type context_feeding",
     lambda c: c.context_vector != "last" and c.attention_type != "none" and c.bridge_type == "zeros"
     and not c.feeds_context,
     "nothing reads C: leave context_vector out, choose another bridge_type, or set context_feeding='every_step'"),
    # A layer that reduces time has no residual: as many from the second on as time_reduction has halvings.
    ("residual encoder_layers time_reduction decoder_layers",
     lambda c: c.residual and c.decoder_layers == 1 and c.encoder_layers <= c.time_reduction.bit_length(),
     "no layer can add to its output what the layer below gave: leave residual out, or give one side more layers"),
)  # fmt: skip


# Options that the weights of a model are made by: changed afterwards, they would be others'.
_OF_THE_WEIGHTS = (
    "vocab_size decoder_vocab_size rnn_type embedding_size encoder_hidden_size decoder_hidden_size encoder_layers "
    "decoder_layers bidirectional_encoder context_feeding bridge_type attention_type attention_query attention_size "
    "input_feeding feed_previous_token readout_type readout_size use_copy coverage location_filters "
    "location_width share_embeddings tie_word_embeddings character_vocab_size character_embedding_size "
    "character_hidden_size layer_norm residual use_crf classifier_pooling num_labels input_feature_size "
    "standardise_features time_reduction num_mel_bins reduction_factor speech_decoder_prenet_layers "
    "speech_decoder_postnet_layers speech_decoder_postnet_units speech_decoder_postnet_kernel prediction_length "
    "distribution_output segment_length decode_at_once channel_independence num_time_features "
    "num_static_real_features num_static_categorical_features cardinality embedding_dimension"
).split()


def made_with(config: Any) -> dict[str, Any]:
    """Return the options that a model's weights are made by."""
    return {name: getattr(config, name) for name in _OF_THE_WEIGHTS}


def too_large(config: Any, given: dict[str, Any]) -> Iterator[str]:
    """Yield sizes beyond all reason, of the fields of a configuration and of other options that are given."""
    for name, most in _MOST.items():
        value = given.get(name, vars(config).get(name))
        if isinstance(value, int) and value > most:
            yield f"{name} must be at most {most}; got {value}"


def contradictions(config: Any) -> Iterator[str]:
    """Yield what cannot be, and what to change: values out of range, contradictions, ids of no symbol."""
    yield from too_large(config, {})
    for names, holds, words in _RANGES:
        for name in names.split():
            value = getattr(config, name)
            if value is not None and not holds(value):
                yield f"{name} must be {words}; got {value}"
    yield from _broken(config, _CONTRADICTIONS)
    reads_symbols = config.input_feature_size is None
    for name in ("unk_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id", "eos_token_id"):
        # The unknown id is put into the source, the padding id is used on both sides, the others in the decoder.
        limit = config.vocab_size if name == "unk_token_id" else config.target_vocab_size
        limit = min(limit, config.vocab_size) if name == "pad_token_id" and reads_symbols else limit
        for value in as_list(getattr(config, name)):
            if not 0 <= value < limit:
                yield f"{name}={value} is not in the vocabulary: give an id from 0 to {limit - 1}, or None"


def without_effect(config: Any) -> Iterator[str]:
    """Yield what changes nothing, and what to change."""
    yield from _broken(config, _WITHOUT_EFFECT)


def _broken(config: Any, rules: Iterable[Rule]) -> Iterator[str]:
    for names, is_broken, text in rules:
        if is_broken(config):
            values = ", ".join(f"{name}={getattr(config, name)!r}" for name in names.split())
            yield f"{values}: {text}"
