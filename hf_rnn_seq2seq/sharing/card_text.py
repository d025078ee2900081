"""A model in words, for its card: its structure, its limitations, and the papers to cite.

Everything follows from the configuration and from the kind of model. Markdown; `card.py` writes the card around it.
The modeling files are not imported.
"""

from importlib import resources
from typing import Literal, TypeAlias

from ..model.configuration_rnn_seq2seq import RnnSeq2SeqConfig
from ..model.subsampling import reduction_plan


# What is on top of the encoder, named after transformers' Auto classes.
ModelKind: TypeAlias = Literal[
    "seq2seq",
    "speech_seq2seq",
    "text_to_spectrogram",
    "token_classification",
    "sequence_classification",
    "forecast",
]

_CELLS = {"lstm": "LSTM", "gru": "GRU", "rnn_tanh": "tanh RNN"}
_CELL_PAPERS = {"lstm": "hochreiter1997", "gru": "cho2014", "rnn_tanh": "elman1990"}
# How the states of the encoder become one vector.
_SUMMARIES = {
    "last": "the encoder's last state",
    "mean": "the mean of all encoder states",
    "max": "the element-wise maximum of all encoder states",
    "attention": "a mix of all encoder states, by attention of one learned query (Raffel & Ellis 2015)",
}
# More labels than this are counted, not listed.
_LISTED_LABELS = 20


def describe_structure(config: RnnSeq2SeqConfig, kind: ModelKind = "seq2seq") -> str:
    """Return a paragraph each on encoder, then context, decoder and CTC, or the classifier's output layer."""
    paragraphs = [_describe_encoder(config)]
    if kind == "token_classification":
        paragraphs.append(_describe_token_labels(config))
    elif kind == "sequence_classification":
        paragraphs.append(_describe_sequence_label(config))
    elif kind == "forecast":
        paragraphs = [_describe_windows(config), *paragraphs, _describe_context(config), _describe_forecast(config)]
    else:
        paragraphs += [_describe_context(config), _describe_decoder(config)]
    if kind == "speech_seq2seq" and config.ctc_weight > 0:
        paragraphs.append(
            "**CTC.** An output layer on the encoder scores each text by the sum over its alignments. Its weight is "
            f"{config.ctc_weight:g}, that of the decoder {1 - config.ctc_weight:g}, in the training loss and, unless "
            "`generate(ctc_weight=...)` says otherwise, in decoding (Watanabe et al. 2017)."
        )
    return "\n\n".join(paragraphs)


def _layers(number: int) -> str:
    return f"{number} layer" if number == 1 else f"{number} layers"


def _describe_encoder(config: RnnSeq2SeqConfig) -> str:
    directions = (
        f"in both directions, {config.encoder_hidden_size // 2} units each"
        if config.bidirectional_encoder
        else f"from left to right, {config.encoder_hidden_size} units"
    )
    read = (
        f"embeddings of size {config.embedding_size} of {config.vocab_size} source symbols"
        if config.input_feature_size is None
        else f"vectors of size {config.input_feature_size}"
    )
    if config.prediction_length is not None:
        read = f"embeddings of size {config.embedding_size} of segments"
    cell = _CELLS[config.rnn_type]
    sentences = [f"**Encoder.** {cell}, {_layers(config.encoder_layers)}, {directions}, over {read}."]
    if config.character_vocab_size is not None:
        sentences.append(
            f"Beside each embedding stand the last states of another {cell}, which reads the word's characters in "
            f"both directions, {config.character_hidden_size // 2} units each (Ling et al. 2015; Lample et al. 2016)."
        )
    if config.time_reduction > 1:
        stacked, *pairs = reduction_plan(config.time_reduction, config.encoder_layers)
        ways = [f"{stacked} vectors are stacked before the first layer"] if stacked > 1 else []
        if 2 in pairs:
            ways.append(f"{_layers(pairs.count(2))} with pairs of successive states as input (Chan et al. 2016)")
        sentences.append(
            f"{config.time_reduction} successive vectors become one position of the encoder's output: "
            f"{', then '.join(ways)}."
        )
    return " ".join(sentences)


def _describe_context(config: RnnSeq2SeqConfig) -> str:
    summary = _SUMMARIES[config.context_vector]
    start = {
        "zeros": "The decoder starts from zeros",
        "copy": f"The decoder starts from a copy of {summary}",
        "linear": f"The decoder starts from a linear map of {summary}",
        "mlp": f"The decoder starts from a linear map with tanh of {summary}",
    }[str(config.bridge_type)]
    if config.attention_type == "none":
        where = (
            "C is an input of every step (Cho et al. 2014)"
            if config.feeds_context
            else "C reaches it no other way (Sutskever et al. 2014)"
        )
        return (
            f"**Context vector.** {summary[0].upper()}{summary[1:]} is the context vector C, of fixed size whatever "
            f"the input's length. {start}, and {where}."
        )
    if config.aligns:
        far = ", and by the distance from the last one" if config.alignment_order else ""
        copied = " It may also copy the symbol that stands there (See et al. 2017)." if config.use_copy else ""
        return (
            "**Alignment.** Hard monotonic attention, exact (Wu & Cotterell 2019): each symbol is written at one "
            f"position of the input, which never goes back, chosen by the decoder's state{far}; probabilities "
            f"sum over all alignments.{copied} {start}."
        )
    score = {
        "dot": "dot (q·m, Luong et al. 2015)",
        "general": "general (q·Wm, Luong et al. 2015)",
        "additive": "additive (v·tanh(Wq + Um), Bahdanau et al. 2015)",
    }[config.attention_type]
    query = (
        "its new state asks, after the recurrent step, and the context is mixed into what the output layer reads"
        if config.attention_query == "new_state"
        else "its previous state asks, before the recurrent step, and the context is an input of that step"
    )
    fed = ", and this summary is an input of every step" if config.feeds_context else ""
    sentences = [
        f"**Attention.** Score: {score}. At every step the decoder gets a context vector of its own, a mix of all "
        f"encoder states: {query}.",
        f"{start}{fed}.",
    ]
    if config.coverage:
        how = "how much each position was attended to so far (coverage, See et al. 2017)"
        if config.location_filters > 0:
            filters = f"{config.location_filters} filters {config.location_width} wide"
            how = f"which positions were attended to so far, by {filters} (Chorowski et al. 2015)"
        sentences.append(f"The score also reads {how}.")
    if config.input_feeding:
        sentences.append("The attentional vector is fed to the next step (input feeding, Luong et al. 2015).")
    return " ".join(sentences)


def _describe_decoder(config: RnnSeq2SeqConfig) -> str:
    readout = {
        "none": "its state",
        "tanh": f"an attentional vector of size {config.readout_size} (tanh)",
        "maxout": f"a deep output of size {config.readout_size} (maxout)",
    }[str(config.readout_type)]
    given = f"chooses among {config.target_vocab_size} target symbols"
    if config.num_mel_bins is not None:
        vectors = "a vector" if config.reduction_factor == 1 else f"{config.reduction_factor} vectors"
        given = (
            f"gives {vectors} of {config.num_mel_bins} numbers, and of each the probability that it is the last one"
        )
    sentences = [
        f"**Decoder.** {_CELLS[config.rnn_type]}, {_layers(config.decoder_layers)}, {config.decoder_hidden_size} "
        f"units. The output layer reads {readout} and {given}."
    ]
    if config.num_mel_bins is not None and config.feed_previous_token:
        sentences.append(
            f"The vector before is read through a pre-net of {_layers(config.speech_decoder_prenet_layers)} with "
            f"dropout {config.speech_decoder_prenet_dropout:g} (Tacotron 2, Shen et al. 2018)."
        )
    if config.speech_decoder_postnet_layers > 0:
        sentences.append(
            f"A post-net of {_layers(config.speech_decoder_postnet_layers)} of convolutions adds what they lack."
        )
    if config.use_copy:
        sentences.append(
            "At each step its distribution is mixed with the attention over the source's symbols, so that these can "
            "be copied (pointer-generator, See et al. 2017)."
        )
    if not config.feed_previous_token:
        given = "symbol" if config.num_mel_bins is None else "vector"
        sentences.append(f"The decoder does not read the {given} it gave before: only its state and the context.")
    if config.share_embeddings:
        sentences.append("Source and target share one embedding table.")
    if config.tie_word_embeddings:
        sentences.append("The output layer's matrix is the decoder's embedding table.")
    return " ".join(sentences)


def _describe_windows(config: RnnSeq2SeqConfig) -> str:
    taken = {
        "none": "",
        "last": " The last value of each window is subtracted, and added to the forecast (Lin et al. 2023).",
        "instance": " Each window is standardised by its own mean and standard deviation, which are put back into the "
        "forecast (Kim et al. 2022).",
        "mean": " Each window is divided by its mean absolute value, and the forecast multiplied by it (Salinas et "
        "al. 2020).",
    }[config.window_normalization]
    channels = "one channel" if config.input_feature_size == 1 else f"{config.input_feature_size} channels"
    alone = ", each a series of its own for the same weights (channel independence)"
    return (
        f"**Input.** Up to {config.context_length} steps of {channels}"
        f"{alone if config.channel_independence else ''}, in the units of the training data, whose mean and standard "
        f"deviation are saved with the model.{taken} {config.segment_length} steps are one segment, and one step of "
        "the recurrence."
    )


def _describe_forecast(config: RnnSeq2SeqConfig) -> str:
    reads = (
        "The decoder makes one step from C for each segment ahead, told by an embedding of its position (Lin et al. "
        "2023)."
        if config.decode_at_once
        else "The decoder reads the segment before, in training the true one."
    )
    gives = {
        "none": "the value",
        "normal": "a normal distribution of the value",
        "student_t": "a Student t distribution of the value",
        "negative_binomial": "a negative binomial distribution of the count",
    }[config.distribution_output]
    return (
        f"**Decoder.** {_CELLS[config.rnn_type]}, {_layers(config.decoder_layers)}, {config.decoder_hidden_size} "
        f"units. {reads} A linear layer gives {gives} at each of {config.prediction_length} steps ahead."
    )


def _labels(config: RnnSeq2SeqConfig) -> str:
    """Return how many labels there are and, if they are few, which."""
    names = list((config.id2label or {}).values())
    if len(names) > _LISTED_LABELS:
        return f"{len(names)} labels"
    return f"{len(names)} labels ({', '.join(f'`{name}`' for name in names)})"


def gives_values(config: RnnSeq2SeqConfig, kind: ModelKind) -> bool:
    """Return whether a model gives values in place of labels."""
    if kind not in ("token_classification", "sequence_classification"):
        return False
    by_itself = kind == "sequence_classification" and config.problem_type is None and config.num_labels == 1
    return config.problem_type == "regression" or by_itself


def _values(config: RnnSeq2SeqConfig) -> str:
    """Return how many values there are and, if they have names, which; and their loss."""
    names = [name for name in (config.id2label or {}).values() if not name.startswith("LABEL_")]
    number = "one value" if config.num_labels == 1 else f"{config.num_labels} values"
    named = f" ({', '.join(f'`{name}`' for name in names)})" if 0 < len(names) <= _LISTED_LABELS else ""
    loss = {"squared": "squared", "absolute": "absolute", "huber": "Huber's"}[config.regression_loss]
    return (
        f"{number}{named} in the units of the training data, whose mean and standard deviation are saved with the "
        f"model. It was trained on the {loss} error"
    )


def _describe_token_labels(config: RnnSeq2SeqConfig) -> str:
    item = "token" if config.input_feature_size is None else "vector"
    if config.problem_type == "regression":
        return f"**Output.** A linear layer gives each {item} {_values(config)}."
    if config.problem_type == "multi_label_classification":
        return (
            f"**Output.** Several labels for each {item}. A linear layer scores {_labels(config)}; each of them holds "
            "or not (sigmoid)."
        )
    chosen = (
        "a linear-chain conditional random field chooses the labels of a sequence together, by Viterbi's algorithm "
        "(Lafferty et al. 2001)"
        if config.use_crf
        else "the best one is chosen at each position by itself (softmax)"
    )
    return f"**Output.** One label for each {item}. A linear layer scores {_labels(config)}, and {chosen}."


def _describe_sequence_label(config: RnnSeq2SeqConfig) -> str:
    if gives_values(config, "sequence_classification"):
        given = f"gives {_values(config)}"
    elif config.problem_type == "multi_label_classification":
        given = f"scores {_labels(config)}, each of which holds or not (sigmoid)"
    else:
        given = f"scores {_labels(config)}, one of which is chosen (softmax)"
    return (
        f"**Output.** One result for the whole sequence. A linear layer reads {_SUMMARIES[config.classifier_pooling]} "
        f"and {given}."
    )


def describe_limitations(config: RnnSeq2SeqConfig, kind: ModelKind, extra: str | None) -> str:
    """Return what a model cannot do, as a Markdown list; `extra` is one more point."""
    reads_text = config.input_feature_size is None
    if kind == "speech_seq2seq":
        unknown = "other voices, accents, microphones, noise and words"
    else:
        unknown = "other domains, spellings and languages" if reads_text else "other sources of vectors"
    if kind == "forecast":
        unknown = "other series, other steps of time and what has not happened yet"
    points = [
        f"It knows only what its training data shows: {unknown} will go wrong, and it answers every input without "
        "saying that it does not know."
    ]
    if reads_text:
        spelling = ", and are told by their characters only" if config.character_vocab_size is not None else ""
        points.append(f"Symbols that the training data did not contain may be read as `<unk>`{spelling}.")
    points.append("Biases of the training data are reproduced.")
    if kind.endswith("classification"):
        if reads_text:
            points.append(
                "It expects text as its training data has it: the same letter case, and punctuation apart from words "
                "or not."
            )
        if gives_values(config, kind):
            points.append("Far outside the range of its training data its values are guesses.")
        if kind == "token_classification" and not gives_values(config, kind):
            points.append("It has no other labels than those of its training data.")
            if not config.use_crf:
                points.append("Each label is chosen by itself: neighbouring labels may contradict each other.")
        elif kind == "sequence_classification" and config.classifier_pooling == "last":
            points.append("All of the input must fit into a vector of fixed size: long inputs lose parts.")
    elif config.attention_type == "none":
        points.append(
            "Without attention all of the input must fit into a vector of fixed size: quality falls with its length."
        )
    else:
        points.append("Inputs much longer than those of the training data may lose or repeat parts.")
    if config.copy_slots and not kind.endswith("classification"):
        points.append(f"Of words that are not in its vocabulary it copies the first {config.copy_slots} of an input.")
    elif config.use_copy and not kind.endswith("classification"):
        points.append("It copies only symbols that are in its vocabulary.")
    if extra:
        points.append(extra)
    return "\n".join(f"- {point}" for point in points)


def citations(config: RnnSeq2SeqConfig, kind: ModelKind) -> str:
    """Return BibTeX of the papers whose ideas a model uses."""
    if kind == "token_classification":
        keys = [_CELL_PAPERS[config.rnn_type], "huang2015"]
        if config.use_crf:
            keys.append("lafferty2001")
    elif kind == "sequence_classification":
        keys = [_CELL_PAPERS[config.rnn_type]]
        if config.classifier_pooling == "attention":
            keys.append("raffel2015")
    else:
        keys = ["sutskever2014", "cho2014"]
        keys += _forecasting_papers(config) if kind == "forecast" else []
        if config.aligns:
            keys.append("wu2019")
        elif config.attention_type != "none":
            keys.append("bahdanau2015")
            if config.attention_type != "additive" or config.attention_query == "new_state":
                keys.append("luong2015")
        if config.use_copy or (config.coverage and not config.location_filters):
            keys.append("see2017")
        if config.location_filters > 0:
            keys.append("chorowski2015")
        if kind == "text_to_spectrogram":
            keys += ["wang2017", "shen2018"]
            if config.guided_attention_loss_scale > 0:
                keys.append("tachibana2018")
        if kind == "speech_seq2seq":
            keys.append("chan2016")
            if config.ctc_weight > 0:
                keys.append("watanabe2017")
    if config.character_vocab_size is not None:
        keys += ["ling2015", "lample2016"]
    entries = bibliography()
    return "\n\n".join(entries[key] for key in keys)


def _forecasting_papers(config: RnnSeq2SeqConfig) -> list[str]:
    keys = ["lin2023"] if config.decode_at_once or config.segment_length > 1 else []
    keys += ["kim2022"] if config.window_normalization == "instance" else []
    keys += ["nie2023"] if config.channel_independence else []
    return keys + (["salinas2020"] if config.distribution_output != "none" else [])


def bibliography() -> dict[str, str]:
    """Return the entries of `citations.bib` by their keys: first author and year, as the docstrings name papers."""
    text = resources.files(__package__).joinpath("citations.bib").read_text(encoding="utf-8")
    return {entry[entry.index("{") + 1 : entry.index(",")]: entry for entry in text.strip().split("\n\n")}
