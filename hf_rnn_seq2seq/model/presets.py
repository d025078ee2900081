"""Classics of the literature as ready options of the configuration; `RnnSeq2SeqConfig.from_preset` reads them."""

from typing import Any


# Sizes and structures as printed in the papers. The source is reversed by the data pipeline, not by the model.
PRESETS: dict[str, dict[str, Any]] = {
    # Sutskever et al. 2014, section 3.4: deep LSTMs, C is the last state of each layer and only starts the decoder.
    "sutskever2014": {
        "rnn_type": "lstm",
        "vocab_size": 160_000,
        "decoder_vocab_size": 80_000,
        "embedding_size": 1000,
        "encoder_hidden_size": 1000,
        "decoder_hidden_size": 1000,
        "encoder_layers": 4,
        "decoder_layers": 4,
        "bidirectional_encoder": False,
        "attention_type": "none",
        "context_feeding": "initial_state",
        "bridge_type": "copy",
    },
    # Cho et al. 2014, appendix A: C starts the decoder through tanh(V c), and is read by each step and the readout.
    "cho2014": {
        "rnn_type": "gru",
        "vocab_size": 15_000,
        "embedding_size": 100,
        "encoder_hidden_size": 1000,
        "decoder_hidden_size": 1000,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "bidirectional_encoder": False,
        "attention_type": "none",
        "context_feeding": "both",
        "bridge_type": "mlp",
        "readout_type": "maxout",
        "readout_size": 500,
    },
    # Bahdanau et al. 2015, appendix A (RNNsearch): additive attention queried by the previous state, deep output. Two
    # liberties: the first state is made of both directions (the paper: of the backward one), and the GRU is torch's.
    "bahdanau2015": {
        "rnn_type": "gru",
        "vocab_size": 30_000,
        "embedding_size": 620,
        "encoder_hidden_size": 2000,
        "decoder_hidden_size": 1000,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "bidirectional_encoder": True,
        "attention_type": "additive",
        "attention_size": 1000,
        "attention_query": "previous_state",
        "context_vector": "last",
        "bridge_type": "mlp",
        "readout_type": "maxout",
        "readout_size": 500,
    },
    # Luong et al. 2015, section 4.1: stacked LSTMs, global attention (general), attentional vector, input feeding.
    "luong2015": {
        "rnn_type": "lstm",
        "vocab_size": 50_000,
        "embedding_size": 1000,
        "encoder_hidden_size": 1000,
        "decoder_hidden_size": 1000,
        "encoder_layers": 4,
        "decoder_layers": 4,
        "bidirectional_encoder": False,
        "attention_type": "general",
        "attention_query": "new_state",
        "input_feeding": True,
        "bridge_type": "copy",
        "hidden_dropout": 0.2,
    },
    # The decoder of the textbooks: it reads nothing but its own state and C.
    "textbook": {
        "rnn_type": "rnn_tanh",
        "embedding_size": 128,
        "encoder_hidden_size": 256,
        "decoder_hidden_size": 256,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "bidirectional_encoder": False,
        "attention_type": "none",
        "context_feeding": "both",
        "bridge_type": "linear",
        "feed_previous_token": False,
    },
}
