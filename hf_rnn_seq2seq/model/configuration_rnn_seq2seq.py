"""Configuration of the RNN encoder-decoders: every option is explained here, once.

The options are those of Sutskever 2014, Cho 2014, Bahdanau 2015 and Luong 2015. What cannot work together is refused
when the configuration is made, with a sentence that says what to change, and so is an option that would change
nothing; a saved model that has one loads, with a warning.
"""

import warnings
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .option_rules import check_names, contradictions, too_large, without_effect, without_own_pipelines
from .presets import PRESETS
from .special_ids import KeepsSpecialIds


@strict
class RnnSeq2SeqConfig(KeepsSpecialIds, PreTrainedConfig):
    r"""
    Configuration of an RNN encoder-decoder: Encoder -> context vector C -> Decoder, with or without attention.

    Shapes in this package: B batch, S source length, T target length, E embedding, H hidden, L layers, V vocabulary.

    Args:
        vocab_size (`int`, defaults to 8000): Number of source symbols; with `input_feature_size`, of target symbols.
        decoder_vocab_size (`int`, *optional*): Number of target symbols; `None` means one vocabulary for both sides.
        rnn_type (`str`, defaults to `"lstm"`): The cell: `"lstm"` (Hochreiter & Schmidhuber 1997, with forget gate),
            `"gru"` (Cho 2014; torch's variant) or `"rnn_tanh"` (Elman 1990).
        embedding_size (`int`, defaults to 256): E, on both sides.
        encoder_hidden_size (`int`, defaults to 512): Size of an encoder state, both directions together.
        decoder_hidden_size (`int`, defaults to 512): H, size of a decoder state; also `config.hidden_size`.
        encoder_layers (`int`, defaults to 2): Recurrent layers of the encoder.
        decoder_layers (`int`, defaults to 2): Recurrent layers of the decoder; also `config.num_hidden_layers`.
        bidirectional_encoder (`bool`, defaults to `True`): Read the source in both directions in every layer.
        context_vector (`str`, defaults to `"last"`): What C is computed from: the `"last"` state (Sutskever 2014, Cho
            2014), or the `"mean"` or `"max"` over all states of the encoder's top layer. As an input of the decoder's
            steps the last state is the layer's last output, with `layer_norm` and `residual`; the decoder's first
            states are computed from the recurrence's own last states, without them.
        context_feeding (`str`, defaults to `"initial_state"`): Where C goes. `"initial_state"` is structure 1: C only
            sets the decoder's first state (Sutskever 2014). `"every_step"` is structure 2: C is an input of every
            decoder step, and the first state is zero. `"both"` does both (Cho 2014).
        bridge_type (`str`, *optional*): How the encoder's final states become the decoder's first state: `"zeros"`
            (not at all), `"copy"`, `"linear"`, or `"mlp"` (linear and tanh). Default: `"zeros"` for structure 2,
            `"copy"` where the sizes agree, otherwise `"linear"`. Decoder layers take the encoder's layers counted from
            the top; if the encoder has fewer, its lowest layer serves the rest.
        attention_type (`str`, defaults to `"general"`): Score of query q and memory m_j: `"dot"` q.m_j, `"general"`
            q.W m_j (Luong 2015), `"additive"` v.tanh(W q + U m_j) (Bahdanau 2015), or `"none"`: fixed context vector.
            `"hard_monotonic"`: no mix: each symbol is written at one position, which never goes back, and all
            alignments are summed over (Wu & Cotterell 2019); for inflection and pronunciation.
        alignment_order (`int`, defaults to 0): With `"hard_monotonic"`: the next position is chosen from what stands
            there (0), or also from how far it is from the last one (1).
        attention_query (`str`, defaults to `"new_state"`): `"new_state"`: attend after the step and mix into an
            attentional vector (Luong 2015); `"previous_state"`: attend before the step, c_t is an input of the step
            (Bahdanau 2015).
        attention_size (`int`, *optional*): Width of the additive score's hidden layer; default `decoder_hidden_size`.
        input_feeding (`bool`, defaults to `False`): Feed the readout vector to the next step (Luong 2015, 3.3).
        feed_previous_token (`bool`, defaults to `True`): `False`: the decoder reads only its state and C.
        readout_type (`str`, *optional*): What stands between the state h_t and the output layer: `"none"`;
            `"tanh"`, the attentional vector tanh(W [c_t; h_t]) (Luong 2015, eq. 5); `"maxout"`, the deep output over
            [h_t; c_t; embedding of y_{t-1}] (Bahdanau 2015, appendix A.2.2). Without attention c_t is C if C is
            fed at every step, and absent otherwise. Default: `"tanh"` with attention, else `"none"`.
        readout_size (`int`, *optional*): Width of the readout vector. Default: `embedding_size` with
            `tie_word_embeddings`, else `decoder_hidden_size`.
        use_copy (`bool`, defaults to `False`): Pointer-generator (See 2017, 2.2): each step mixes the vocabulary's
            distribution with the attention over the source's symbols, P(w) = p_gen P_vocab(w) + (1 - p_gen)
            sum_{j: x_j = w} a_j. It needs an attention and one vocabulary for both sides; the model's `logits` are
            then log P.
        copy_slots (`int`, defaults to 0): How many words of a source that are not in the vocabulary can be copied
            (See 2017, 2.2: the extended vocabulary), with `use_copy`. The ids from `vocab_size` on stand for them, for
            each source anew, as `encode_with_slots` gives them; they are embedded as `unk_token_id`, and `logits` are
            so much wider. The slots have no weights: a trained model can be given some.
        coverage (`bool`, defaults to `False`): The score reads how much each position was attended to so far (See
            2017, 2.3): `"additive"` inside the tanh, `"dot"` and `"general"` times one learned number. Its weights
            start at zero, so that it can be added to a trained model. Training then runs step by step, several times
            slower, and adds the coverage loss.
        location_filters (`int`, defaults to 0): With `coverage`, so many filters over the sum of the weights of
            neighbouring positions are read in place of that of each position alone (Chorowski 2015, 2.1.1, the
            location-aware attention; over the sum and not the last weights: Tacotron 2, Shen 2018). For a decoder that
            stays on a symbol for many steps: speech. Their weights do not start at zero.
        location_width (`int`, defaults to 31): How many neighbours a filter reads, an odd number.
        coverage_loss_weight (`float`, defaults to 1.0): Weight of the coverage loss sum_j min(a_j, coverage_j) beside
            the cross entropy of each target symbol (eq. 13); in training only.
        share_embeddings (`bool`, defaults to `False`): One embedding table for source and target.
        tie_word_embeddings (`bool`, defaults to `False`): The output matrix is the decoder's embedding table (Press &
            Wolf 2017); with `share_embeddings`, one table for all three.
        character_vocab_size (`int`, *optional*): Number of characters. A word's vector is then its embedding beside
            the last states of a bidirectional RNN over its characters (Ling 2015; Lample 2016), which the encoder
            takes as `character_ids`. `None`: words have no characters.
        character_embedding_size (`int`, defaults to 32): Size of an embedded character.
        character_hidden_size (`int`, defaults to 64): Size of what the characters say, both directions together.
        token_dropout (`float`, defaults to 0.0): In training, the probability that a source id is replaced by
            `unk_token_id`, so that the model learns to read a word that it does not know, by its characters if it has
            them (Lample 2016 do so to words seen once).
        embedding_dropout (`float`, defaults to 0.0): Dropout on embedded symbols, and on what characters say.
        hidden_dropout (`float`, defaults to 0.0): Dropout on what each layer hands upward, on the encoder's memory and
            on what the output layer reads. Never on the recurrence.
        output_dropout (`float`, *optional*): Dropout on what the decoder's output layer reads, in place of
            `hidden_dropout` there.
        recurrent_dropout (`float`, defaults to 0.0): Variational dropout of the recurrent state: one mask a sequence
            (Gal & Ghahramani 2016). Training then runs step by step, several times slower.
        layer_norm (`bool`, defaults to `False`): Layer normalisation of what each layer hands upward, outside the
            recurrence. The encoder's top layer has none in a whole model in which nothing reads its outputs: without
            attention, where the last states only set the decoder's first.
        residual (`bool`, defaults to `False`): From the second layer on, add a layer's input to its output (Wu 2016).
        raw_last_state (`bool`, *optional*): The `"last"` of `context_vector` and `classifier_pooling` is the state of
            the recurrence also where it is an input of the decoder's steps or of a classifier: without the top layer's
            `layer_norm` and `residual`. Default: `False`, and `True` of a saved model that has one of the two and does
            not know this option, since so it was trained.
        label_smoothing (`float`, defaults to 0.0): Of the training loss (Szegedy 2016); evaluation losses are plain.
        init_scheme (`str`, defaults to `"orthogonal"`): How weights begin. `"orthogonal"`: recurrent matrices
            orthogonal per gate, other matrices Xavier, the LSTM's forget bias 1 (Jozefowicz 2015), embeddings of
            standard deviation `size ** -0.5`. `"torch"`: as torch's modules do, and so the models of many papers:
            recurrent weights and biases uniform up to `cell_size ** -0.5`, projections up to `inputs ** -0.5`,
            embeddings of standard deviation 1.
        init_std (`float`, *optional*): Standard deviation of embeddings and projections instead.
        use_crf (`bool`, defaults to `False`): Token classification scores the labels of a sequence together, in a
            linear-chain conditional random field (Lafferty 2001), instead of one by one, without `label_smoothing`.
        classifier_pooling (`str`, defaults to `"last"`): What sequence classification reads: the `"last"` state, the
            `"mean"` or `"max"` over all states, or their mix by `"attention"` of one learned query (Raffel & Ellis
            2015).
        classifier_dropout (`float`, defaults to 0.0): Dropout on what the output layer of a classifier reads, beside
            `hidden_dropout` on the encoder's memory.
        input_feature_size (`int`, *optional*): F: the input is a sequence of vectors of this size, `input_features`
            (speech, sensors), and the encoder has no embedding table. `None`: the input is token ids.
        standardise_features (`bool`, defaults to `False`): Subtract a mean from `input_features` and divide by a
            standard deviation, feature by feature: buffers of the encoder, `input_scale`, which are fitted to training
            data and saved with the model, so that it reads the user's units. A feature that is NaN, missing, is read
            as its mean.
        regression_loss (`str`, defaults to `"squared"`): Loss of values, in standard deviations of the training data:
            `"squared"` (they are then estimates of the mean), `"absolute"` (of the median) or `"huber"` (Huber 1964:
            squared up to 1, then absolute).
        time_reduction (`int`, defaults to 1): 1, 2, 4, 8 ...: how many input vectors become one position of the
            memory. Each encoder layer from the second on reads pairs of consecutive states, concatenated, until the
            factor is reached (Chan 2016, eq. 5); a layer that does so has no `residual`. What the layers cannot do is
            done by stacking input vectors.
        ctc_weight (`float`, defaults to 0.0): Of the speech model: weight of the CTC branch on the encoder in the
            training loss, (1 - w) attention + w CTC, and in decoding unless `generate(ctc_weight=...)` says otherwise
            (Watanabe 2017). 0: there is no CTC branch. The blank is `pad_token_id`.
        num_mel_bins (`int`, *optional*): M: the output is a sequence of vectors of this size, a spectrogram, which
            ends where the model decides (`RnnSeq2SeqForTextToSpectrogram`). The decoder reads the vector before, not a
            symbol. `None`: the output is symbols. This option and the next eight have the names of transformers'
            SpeechT5.
        reduction_factor (`int`, defaults to 1): r: vectors a decoder step emits (Wang 2017, Tacotron, 3.4); the next
            step reads the last of them.
        speech_decoder_prenet_layers (`int`, defaults to 2): Layers of the pre-net between the vector before and the
            decoder, ReLU and dropout each, `embedding_size` wide (Tacotron 2, 2.2).
        speech_decoder_prenet_dropout (`float`, defaults to 0.5): Its dropout: in training, and unless
            `prenet_dropout_in_generation` is `False` when a spectrogram is generated too. Never in an evaluation loss.
        speech_decoder_postnet_layers (`int`, defaults to 0): Convolutions of the post-net, which adds to the emitted
            vectors what they lack (Tacotron 2, 2.2; without batch normalisation, by which padding and the other
            sequences of a batch would change a result). 0: there is no post-net.
        speech_decoder_postnet_units (`int`, defaults to 256): Their channels.
        speech_decoder_postnet_kernel (`int`, defaults to 5): Their width in vectors, an odd number.
        speech_decoder_postnet_dropout (`float`, defaults to 0.5): Their dropout.
        guided_attention_loss_scale (`float`, defaults to 0.0): Weight of the guided attention loss, which draws the
            attention to the diagonal (Tachibana 2017, eq. 6); in training only. 0: there is none.
        guided_attention_loss_sigma (`float`, defaults to 0.4): How far from the diagonal costs little.
        stop_loss_weight (`float`, defaults to 1.0): Weight of the cross entropy of stopping in a spectrogram's loss.
        prenet_dropout_in_generation (`bool`, defaults to `True`): See `speech_decoder_prenet_dropout`.
        prediction_length (`int`, *optional*): T: how many steps `RnnSeq2SeqForTimeSeriesPrediction` forecasts, of
            vectors of `input_feature_size` channels (also `config.input_size`). `None`: the model is no forecaster.
        context_length (`int`, *optional*): How many steps of the past it reads at most. Default: `prediction_length`.
        distribution_output (`str`, defaults to `"none"`): What it forecasts of a value: `"none"`, the value itself
            (trained by `regression_loss`), or its distribution: `"normal"`, `"student_t"` or `"negative_binomial"`
            (counts; Salinas 2020, DeepAR), trained by its likelihood.
        segment_length (`int`, defaults to 1): How many steps are one step of the recurrence, on both sides (Lin 2023,
            SegRNN).
        decode_at_once (`bool`, defaults to `False`): Every segment is one decoder step from C, told by the embedding
            of its position and channel which one it is (Lin 2023: parallel multi-step forecasting). `False`: a step
            reads the segment before, in training the true one (teacher forcing).
        channel_independence (`bool`, defaults to `False`): Each channel is a series of its own, forecast by the same
            weights (Nie 2023, PatchTST).
        window_normalization (`str`, defaults to `"none"`): What is taken out of each window of the past and put back
            into the forecast, per channel: `"last"` subtracts the last observed value (Lin 2023); `"instance"`
            subtracts the mean and divides by the standard deviation (Kim 2022, without learned scale; transformers'
            `scaling="std"`); `"mean"` divides by the mean absolute value (Salinas 2020; `scaling="mean"`).
        num_time_features (`int`, defaults to 0): Numbers that are known of each step, past and future (calendar).
        num_static_real_features (`int`, defaults to 0): Numbers that are known of a series.
        num_static_categorical_features (`int`, defaults to 0): Classes that are known of a series.
        cardinality (`list[int]`, *optional*): Number of classes of each of these.
        embedding_dimension (`list[int]`, *optional*): Size of their embeddings. Default: half the classes, up to 50.
        num_parallel_samples (`int`, defaults to 100): How many futures `generate()` draws.

    Example:

    ```python
    >>> from hf_rnn_seq2seq import RnnSeq2SeqConfig, RnnSeq2SeqForConditionalGeneration

    >>> config = RnnSeq2SeqConfig(vocab_size=100, rnn_type="gru", attention_type="additive")
    >>> model = RnnSeq2SeqForConditionalGeneration(config)
    >>> config = RnnSeq2SeqConfig.from_preset("luong2015", vocab_size=100, hidden_dropout=0.3)
    ```
    """

    model_type = "rnn_seq2seq"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]
    attribute_map = {
        "hidden_size": "decoder_hidden_size",
        "num_hidden_layers": "decoder_layers",
        "input_size": "input_feature_size",
    }

    vocab_size: int = 8000
    decoder_vocab_size: int | None = None
    rnn_type: Literal["lstm", "gru", "rnn_tanh"] = "lstm"
    embedding_size: int = 256
    encoder_hidden_size: int = 512
    decoder_hidden_size: int = 512
    encoder_layers: int = 2
    decoder_layers: int = 2
    bidirectional_encoder: bool = True
    context_vector: Literal["last", "mean", "max"] = "last"
    context_feeding: Literal["initial_state", "every_step", "both"] = "initial_state"
    bridge_type: Literal["zeros", "copy", "linear", "mlp"] | None = None
    attention_type: Literal["none", "dot", "general", "additive", "hard_monotonic"] = "general"
    alignment_order: Literal[0, 1] = 0
    attention_query: Literal["new_state", "previous_state"] = "new_state"
    attention_size: int | None = None
    input_feeding: bool = False
    feed_previous_token: bool = True
    readout_type: Literal["none", "tanh", "maxout"] | None = None
    readout_size: int | None = None
    use_copy: bool = False
    copy_slots: int = 0
    coverage: bool = False
    coverage_loss_weight: float | int = 1.0
    location_filters: int = 0
    location_width: int = 31
    share_embeddings: bool = False
    tie_word_embeddings: bool = False
    character_vocab_size: int | None = None
    character_embedding_size: int = 32
    character_hidden_size: int = 64
    token_dropout: float | int = 0.0
    embedding_dropout: float | int = 0.0
    hidden_dropout: float | int = 0.0
    output_dropout: float | int | None = None
    recurrent_dropout: float | int = 0.0
    layer_norm: bool = False
    residual: bool = False
    raw_last_state: bool | None = None
    label_smoothing: float | int = 0.0
    init_scheme: Literal["orthogonal", "torch"] = "orthogonal"
    init_std: float | int | None = None
    use_crf: bool = False
    classifier_pooling: Literal["last", "mean", "max", "attention"] = "last"
    classifier_dropout: float | int = 0.0
    input_feature_size: int | None = None
    standardise_features: bool = False
    regression_loss: Literal["squared", "absolute", "huber"] = "squared"
    time_reduction: int = 1
    ctc_weight: float | int = 0.0
    num_mel_bins: int | None = None
    reduction_factor: int = 1
    speech_decoder_prenet_layers: int = 2
    speech_decoder_prenet_dropout: float | int = 0.5
    speech_decoder_postnet_layers: int = 0
    speech_decoder_postnet_units: int = 256
    speech_decoder_postnet_kernel: int = 5
    speech_decoder_postnet_dropout: float | int = 0.5
    guided_attention_loss_scale: float | int = 0.0
    guided_attention_loss_sigma: float | int = 0.4
    stop_loss_weight: float | int = 1.0
    prenet_dropout_in_generation: bool = True
    prediction_length: int | None = None
    context_length: int | None = None
    distribution_output: Literal["none", "normal", "student_t", "negative_binomial"] = "none"
    segment_length: int = 1
    decode_at_once: bool = False
    channel_independence: bool = False
    window_normalization: Literal["none", "last", "instance", "mean"] = "none"
    num_time_features: int = 0
    num_static_real_features: int = 0
    num_static_categorical_features: int = 0
    cardinality: list[int] | None = None
    embedding_dimension: list[int] | None = None
    num_parallel_samples: int = 100
    use_cache: bool = True
    is_encoder_decoder: bool = True
    unk_token_id: int | None = 0
    pad_token_id: int | None = 1
    bos_token_id: int | None = 2
    eos_token_id: int | list[int] | None = 3
    decoder_start_token_id: int | None = 2

    def __post_init__(self, **kwargs: Any) -> None:
        check_names(self, kwargs)
        for problem in too_large(self, kwargs):  # now: a list is as long as some of them say
            raise ValueError(problem)
        if not __name__.startswith("transformers_modules"):
            # Pipelines whose code lies in a folder are for those without the package, which has registered its own.
            kwargs = without_own_pipelines(kwargs)
        super().__post_init__(**kwargs)
        # Options that follow from others are filled in only if they were not given, so a saved file says everything.
        if self.bridge_type is None:
            if self.context_feeding == "every_step":
                self.bridge_type = "zeros"
            else:
                self.bridge_type = "copy" if self.encoder_hidden_size == self.decoder_hidden_size else "linear"
        if self.readout_type is None:
            self.readout_type = "none" if self.attention_type == "none" else "tanh"
        if self.readout_size is None and self.readout_type != "none":
            self.readout_size = self.embedding_size if self.tie_word_embeddings else self.decoder_hidden_size
        if self.context_length is None:
            self.context_length = self.prediction_length
        if self.embedding_dimension is None and self.cardinality is not None:
            self.embedding_dimension = [min(50, (classes + 1) // 2) for classes in self.cardinality]
        if self.raw_last_state is None:
            self.raw_last_state = self._was_saved and (self.layer_norm or self.residual)

    @property
    def _was_saved(self) -> bool:
        """Whether this is what a file says: `save_pretrained` writes the version of transformers into it."""
        return self.transformers_version is not None

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Read what was saved, whether or not it says so."""
        return super().from_dict({"model_type": cls.model_type, **config_dict}, **kwargs)

    @classmethod
    def from_json_file(cls, json_file: Any) -> Any:
        """Read a saved file."""
        return cls.from_dict(cls._dict_from_json_file(json_file))

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> "RnnSeq2SeqConfig":
        """
        Return a classic of the literature as a ready configuration: `"sutskever2014"`, `"cho2014"`, `"bahdanau2015"`,
        `"luong2015"` or `"textbook"`. Any option among `overrides` replaces the paper's value.
        """
        if not isinstance(name, str) or name not in PRESETS:
            raise ValueError(f"name must be one of {', '.join(PRESETS)}; got {name!r}")
        return cls(**{**PRESETS[name], **overrides})

    @property
    def layer_types(self) -> list[str]:
        """One recurrent state a decoder layer: this tells `generate()` which cache to make."""
        return ["rnn_state"] * self.decoder_layers

    @property
    def target_vocab_size(self) -> int:
        """Number of target symbols, whether or not the two sides share a vocabulary."""
        return self.vocab_size if self.decoder_vocab_size is None else self.decoder_vocab_size

    @property
    def output_size(self) -> int:
        """Size of the vector that the output layer reads."""
        return self.decoder_hidden_size if self.readout_size is None else self.readout_size

    @property
    def aligns(self) -> bool:
        """Whether the decoder sums over alignments, in place of mixing the memory."""
        return self.attention_type == "hard_monotonic"

    @property
    def feed_size(self) -> int:
        """Size of the vector that a step hands to the next beside the recurrence's state; 0: none."""
        return self.decoder_hidden_size if self.aligns else self.output_size * self.input_feeding

    @property
    def feeds_context(self) -> bool:
        """Whether C is an input of every decoder step (structure 2)."""
        return self.context_feeding != "initial_state"

    @property
    def reads_memory(self) -> bool:
        """Whether a whole model reads the encoder's outputs, and not only its last states."""
        return (
            self.attention_type != "none" or self.feeds_context or self.context_vector != "last" or self.ctc_weight > 0
        )

    @property
    def last_is_output(self) -> bool:
        """Whether the last output of the encoder's top layer is another vector than its last state."""
        return (self.layer_norm or (self.residual and self.encoder_layers > 1)) and not self.raw_last_state

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> "RnnSeq2SeqConfig":
        """Return the configuration itself; for the decoder, with the number of its logits as `vocab_size`."""
        if decoder and not encoder and self.target_vocab_size + self.copy_slots != self.vocab_size:
            text_config = self.plain_copy()
            text_config.vocab_size, text_config.copy_slots = self.target_vocab_size + self.copy_slots, 0
            return text_config
        if self.decoder_vocab_size is not None and not decoder and not encoder:
            return self.shield()  # see special_ids.py
        return self

    def validate_layer_type(self) -> None:
        """transformers knows only its own layer types; ours is registered by `state.py`."""

    def check_options(self) -> None:
        """Refuse options out of range and combinations that cannot work."""
        for problem in contradictions(self):
            raise ValueError(problem)

    def validate_options(self) -> None:
        """Refuse these and, in a new model, options without effect; `@strict` runs this."""
        if not self.is_encoder_decoder:  # set later it changes nothing, and transformers' tools do
            raise ValueError("is_encoder_decoder=False: this is an encoder-decoder: leave is_encoder_decoder out")
        self.check_options()
        for problem in without_effect(self):
            if not self._was_saved:
                raise ValueError(problem)
            warnings.warn(f"{problem} (in a new model this is refused)", stacklevel=2)


__all__ = ["PRESETS", "RnnSeq2SeqConfig"]
