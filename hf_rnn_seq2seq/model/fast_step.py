"""One step of the decoder for all hypotheses of a search, in fewer and faster operations.

Plain twins: `RnnSeq2SeqDecoder.step` and the output layer of `DecoderStep`; `Attention.forward` of `_Products`; of
`_Layer`, `lstm_step`, `gru_step` and `rnn_tanh_step` of `recurrence`. A change of a twin is not seen here, where a
search takes it from: it is to be made in both. No gradients, no dropout. A source's hypotheses stand where other steps
have the positions of a target, so that all of them read one memory. B sources, K hypotheses of each, N = B * K, S
source length, E embedding, G gates * H, V vocabulary. This file travels to the Hub: it imports only the standard
library, torch and its flat siblings.
"""

import torch
from torch import Tensor, nn

from .attention import Attention
from .copying import Pointer, log_mixture
from .decoder import RnnSeq2SeqDecoder
from .embedding import known_symbols
from .fast_products import PreparedLinear, PreparedLstm, matrix_product
from .recurrence import LayerState
from .state import DecoderState, SourceMemory


# A table of all symbols' first gates is paid for where a step has a row for so many symbols.
_SYMBOLS_PER_ROW = 4


class DecoderStep:
    """
    The decoder's step and the output layer. What a whole search shares is made once, here.

    The recurrence and the output layer are run with rows (N, .), all that reads the source with (B, K, .).

    Args:
        decoder: Whose step it is; `may_look` must hold for it and for the output layer.
        source: Of B sources.
        output_layer: (N, R) -> (N, V).
        beams: K.
        rows: N.
    """

    def __init__(
        self, decoder: RnnSeq2SeqDecoder, source: SourceMemory, output_layer: nn.Linear, beams: int, rows: int
    ):
        config = decoder.config
        self.decoder, self.source, self.beams = decoder, source, beams
        # Looked up once: a configuration is slow to read.
        self.feeds_back, self.covers, self.copies = config.input_feeding, config.coverage, config.use_copy
        self.copy_slots = config.copy_slots
        self.readout_type, self.feeds_context = config.readout_type, config.feeds_context
        self.reads_embedding = config.readout_type == "maxout" or config.use_copy
        self.embedding: Tensor | None = None  # (V, E), where looking a symbol up is all that there is to it
        if config.feed_previous_token:
            self.embedding = None if decoder.embed_tokens.max_norm else decoder.embed_tokens.weight
        self.recurrence = _Recurrence(decoder, source.context, beams, rows)
        self.attention: Attention | _Products | None = decoder.attention if decoder.attends else None
        if isinstance(self.attention, Attention) and _Products.suit(self.attention, source, self.covers):
            self.attention = _Products(source)
        self.read_out = (
            None if self.readout_type == "none" else PreparedLinear(decoder.readout.weight, decoder.readout.bias, rows)
        )
        self.output_layer = PreparedLinear(output_layer.weight, output_layer.bias, rows)

    def select(self, rows: Tensor) -> None:
        """Go on with these sources only, of one hypothesis each."""
        self.source = SourceMemory(*(None if part is None else part.index_select(0, rows) for part in self.source))
        if isinstance(self.attention, _Products):
            self.attention = _Products(self.source)
        self.recurrence.select(rows)

    def __call__(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """Return logits (N, V), slots included, and the next state, from the last symbols (N,) and the state."""
        decoder = self.decoder
        if self.copy_slots:
            tokens = known_symbols(tokens, decoder.config, "decoder_input_ids")
        embedded: Tensor | None = None
        if self.recurrence.table is None or self.reads_embedding:
            if self.embedding is None:
                embedded = decoder.embed(tokens.unsqueeze(1)).squeeze(1)
            else:
                embedded = self.embedding.index_select(0, tokens)
        attended: Tensor | None = None  # (N, D)
        weights: Tensor | None = None  # (B, K, S)
        fed = []
        if decoder.attends_before_step:
            attended, weights = self._attend(state.layers[-1][0], state.coverage)
            fed.append(attended)
        if self.feeds_back:
            fed.append(state.feed)
        layers, top = self.recurrence(tokens, embedded, fed, state.layers)
        if decoder.attends and not decoder.attends_before_step:
            attended, weights = self._attend(top, state.coverage)
        readout = self._read_out(top, attended, embedded)
        logits = self.output_layer(readout)
        if self.copies:
            b, k = weights.shape[:2]
            h, c, e = (part.view(b, k, -1) for part in (top, attended, embedded))
            pointer = Pointer(decoder._generation_gate(h, c, e, self.source), weights, self.source.symbols)
            logits = log_mixture(logits.view(b, k, -1), pointer, self.copy_slots).flatten(0, 1)
        new_state = DecoderState(
            layers,
            readout if self.feeds_back else None,
            state.coverage + weights.flatten(0, 1) if self.covers else None,
        )
        return logits, new_state

    def _attend(self, query: Tensor, coverage: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return context vectors (N, D) and weights (B, K, S) of queries (N, H)."""
        query = query.view(-1, self.beams, query.shape[1])
        if isinstance(self.attention, _Products):
            attended, weights = self.attention(query)
        else:
            coverage = None if coverage is None else coverage.view(*query.shape[:2], -1)
            attended, weights = self.decoder._attend(query, self.source, coverage)
        return attended.flatten(0, 1), weights

    def _read_out(self, top: Tensor, attended: Tensor | None, embedded: Tensor | None) -> Tensor:
        """Return what the output layer reads, (N, R)."""
        if self.read_out is None:
            return top
        if attended is None and self.feeds_context:
            attended = self.source.context.repeat_interleave(self.beams, dim=0)
        context = [] if attended is None else [attended]
        if self.readout_type == "tanh":
            return self.read_out(torch.cat([*context, top], dim=1)).tanh_()
        return self.read_out(torch.cat([top, *context, embedded], dim=1)).unflatten(1, (-1, 2)).amax(2)


class _Recurrence:
    """The step of the decoder's layers; `context` is C (B, D), the other arguments are those of `DecoderStep`."""

    def __init__(self, decoder: RnnSeq2SeqDecoder, context: Tensor | None, beams: int, rows: int):
        config, rnn = decoder.config, decoder.rnn
        self.rnn, self.rnn_type = rnn, rnn.rnn_type
        self.table: Tensor | None = None  # (V, G), what a symbol gives to the first layer's gates
        all_weights = [rnn.weights(k) for k in range(rnn.num_layers)]
        fuses = self.rnn_type == "lstm" and not config.feeds_context
        self.layers: list[PreparedLstm | _Layer] = [
            PreparedLstm(weights, rows)
            if fuses and PreparedLstm.suits(weights[0], rows)
            else _Layer(self.rnn_type, weights, rows)
            for weights in all_weights
        ]
        bottom = self.layers[0]
        self.from_gates = isinstance(bottom, _Layer)
        if not isinstance(bottom, _Layer):
            return
        size = config.encoder_hidden_size
        sizes = [config.embedding_size if config.feed_previous_token else 0]
        sizes += [size] * (config.feeds_context + decoder.attends_before_step)
        sizes += [config.output_size] * config.input_feeding
        w_embedded, *parts = all_weights[0][0].split(sizes, dim=1)
        self.first = bottom.bias  # (G,), or (N, G) with C
        if config.feeds_context:
            assert context is not None  # C is fed
            self.first = torch.addmm(self.first, context, parts.pop(0).t()).repeat_interleave(beams, dim=0)
        self.by_row = self.first.dim() == 2
        self.fed = [PreparedLinear(part, None, rows) for part in parts]
        bias = None if self.by_row else self.first
        vocabulary = config.target_vocab_size
        if config.feed_previous_token and vocabulary <= _SYMBOLS_PER_ROW * rows:
            symbols = decoder.embed(torch.arange(vocabulary, device=w_embedded.device)[None])[0]
            self.table = matrix_product(symbols, w_embedded.contiguous().t(), bias)
        else:
            self.embedded = PreparedLinear(w_embedded, bias, rows)

    def select(self, rows: Tensor) -> None:
        if self.from_gates and self.by_row:
            self.first = self.first.index_select(0, rows)

    def __call__(
        self, tokens: Tensor, embedded: Tensor | None, fed: list[Tensor], states: tuple[LayerState, ...]
    ) -> tuple[tuple[LayerState, ...], Tensor]:
        """Return the layers' new states, and what the top one hands upward (N, H)."""
        new_states: list[LayerState] = []
        x: Tensor | None = None
        for k, (layer, state) in enumerate(zip(self.layers, states, strict=True)):
            if k > 0:
                new_state = layer(x, state)
            elif isinstance(layer, _Layer):
                new_state = layer.from_gates(self._first_gates(tokens, embedded, fed), state)
            else:
                new_state = layer(torch.cat([embedded, *fed], dim=1) if fed else embedded, state)
            x = self.rnn._hand_upward(k, x, new_state[0])
            new_states.append(new_state)
        return tuple(new_states), x

    def _first_gates(self, tokens: Tensor, embedded: Tensor | None, fed: list[Tensor]) -> Tensor:
        """Compute W_ih x + b of the first layer, (N, G), of x = [embedded ; C ; fed]."""
        if self.table is not None:
            gates = self.table.index_select(0, tokens)
            gates = gates.add_(self.first) if self.by_row else gates
        else:
            gates = self.embedded.plus(self.first, embedded) if self.by_row else self.embedded(embedded)
        for part, product in zip(fed, self.fed, strict=True):
            gates = product.plus(gates, part)
        return gates


class _Layer:
    """A recurrent layer's step from products."""

    def __init__(self, rnn_type: str, weights: tuple[Tensor, Tensor, Tensor, Tensor], rows: int):
        w_ih, w_hh, b_ih, b_hh = weights
        self.rnn_type = rnn_type
        # What is added to every step's gates: the GRU multiplies the second bias.
        self.bias = b_ih if rnn_type == "gru" else b_ih + b_hh
        self.input = PreparedLinear(w_ih, self.bias, rows)
        self.hidden = PreparedLinear(w_hh, b_hh if rnn_type == "gru" else None, rows)

    def __call__(self, x: Tensor, state: LayerState) -> LayerState:
        """Return the state after the input x (N, I)."""
        return self.from_gates(self.input(x), state)

    def from_gates(self, gates: Tensor, state: LayerState) -> LayerState:
        """Return the state after W_ih x + b (N, G), which may be overwritten."""
        h = state[0]
        if self.rnn_type == "lstm":
            return _lstm_gates(self.hidden.plus(gates, h), state[1])
        if self.rnn_type == "gru":
            return (_gru_gates(gates, self.hidden(h), h),)
        return (self.hidden.plus(gates, h).tanh_(),)


class _Products:
    """Attention to one source memory whose scores are products, without coverage."""

    def __init__(self, source: SourceMemory):
        self.keys, self.memory = source.keys.transpose(1, 2), source.memory
        self.bias: Tensor | None = None  # (B, 1, S), what is added to the scores
        if source.mask is not None:
            lowest = torch.finfo(self.memory.dtype).min
            self.bias = torch.zeros_like(source.mask, dtype=self.memory.dtype).masked_fill_(~source.mask, lowest)
            self.bias = self.bias.unsqueeze(1)

    @staticmethod
    def suit(attention: Attention, source: SourceMemory, covers: bool) -> bool:
        """Whether there is no more to this attention, in a precision that the softmax needs."""
        return (
            attention.attention_type in ("dot", "general")
            and not covers
            and source.memory.dtype in (torch.float32, torch.float64)
        )

    def __call__(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """Return context vectors (B, K, D) and weights (B, K, S) of queries (B, K, H)."""
        scores = torch.bmm(query, self.keys) if self.bias is None else torch.baddbmm(self.bias, query, self.keys)
        weights = scores.softmax(-1)
        return torch.bmm(weights, self.memory), weights


def _lstm_gates(gates: Tensor, cell: Tensor) -> LayerState:
    """Compute `recurrence.lstm_step` from the sum of all its products (N, 4H), which is overwritten."""
    size = cell.shape[-1]
    input_and_forget, g, o = gates.split([2 * size, size, size], dim=1)
    i, f = input_and_forget.sigmoid_().chunk(2, dim=1)
    cell = (f * cell).addcmul_(i, g.tanh_())
    return cell.tanh().mul_(o.sigmoid_()), cell


def _gru_gates(x_gates: Tensor, h_gates: Tensor, hidden: Tensor) -> Tensor:
    """Compute `recurrence.gru_step` from its products (N, 3H), which are overwritten."""
    size = hidden.shape[-1]
    both = x_gates[:, : 2 * size].add_(h_gates[:, : 2 * size]).sigmoid_()
    r, z = both.chunk(2, dim=1)
    n = x_gates[:, 2 * size :].addcmul_(r, h_gates[:, 2 * size :]).tanh_()
    return torch.lerp(n, hidden, z)


def select_state(state: DecoderState, rows: Tensor) -> DecoderState:
    """Return the state of the hypotheses `rows` (M,)."""
    layers = tuple(tuple(part.index_select(0, rows) for part in layer) for layer in state.layers)
    feed, coverage = (None if part is None else part.index_select(0, rows) for part in state[1:])
    return DecoderState(layers, feed, coverage)
