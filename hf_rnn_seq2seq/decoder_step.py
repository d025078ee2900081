"""One step of the decoder for all hypotheses of a search: `RnnSeq2SeqDecoder.step` in fewer operations.

No gradients, no dropout. A source's hypotheses stand where other steps have the positions of a target, so that all of
them read one memory. B sources, K hypotheses of each, N = B * K, E embedding, G gates * H, V vocabulary. This file
travels to the Hub: it imports only the standard library, torch and its flat siblings.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .copying import Pointer
from .decoder import RnnSeq2SeqDecoder
from .recurrence import STEPS, LayerState
from .state import DecoderState, SourceMemory


class DecoderStep:
    """
    The decoder's step and the output layer. What a whole search shares is made once, here.

    The recurrence is run with rows (N, .), all that reads the source with (B, K, .).

    Args:
        decoder: Whose step it is.
        source: Of B sources.
        logits: The model's output layer: (readout (B, K, R), pointer) -> (B, K, V).
        beams: K.
        rows: N.
    """

    def __init__(
        self,
        decoder: RnnSeq2SeqDecoder,
        source: SourceMemory,
        logits: Callable[[Tensor, Pointer | None], Tensor],
        beams: int,
        rows: int,
    ):
        config = decoder.config
        self.decoder, self.source, self.logits, self.beams = decoder, source, logits, beams
        rnn = decoder.rnn
        self.weights = [rnn.weights(k) for k in range(rnn.num_layers)]
        # What is added to every step's gates: the LSTM adds both biases, the GRU multiplies the second.
        self.biases = [b_ih + b_hh if rnn.rnn_type == "lstm" else b_ih for _, _, b_ih, b_hh in self.weights]
        w_ih = self.weights[0][0]
        size = config.encoder_hidden_size
        sizes = [config.embedding_size if config.feed_previous_token else 0]
        sizes += [size] * (config.feeds_context + decoder.attends_before_step)
        sizes += [config.output_size] * config.input_feeding
        self.w_embedded, *parts = w_ih.split(sizes, dim=1)
        self.first = self.biases[0]  # (G,), or (N, G) with C
        if config.feeds_context:
            assert source.context is not None  # C is fed
            self.first = torch.addmm(self.first, source.context, parts.pop(0).t()).repeat_interleave(beams, dim=0)
        self.w_fed = [part.t() for part in parts]
        # Looked up once: a configuration is slow to read.
        self.feeds_back, self.covers, self.copies = config.input_feeding, config.coverage, config.use_copy
        self.reads_embedding = config.readout_type == "maxout" or config.use_copy
        # A step that multiplies all embeddings is paid for when the vocabulary is as small as a few steps.
        self.table: Tensor | None = None  # (V, G)
        if config.feed_previous_token and config.target_vocab_size <= 4 * rows:
            ids = torch.arange(config.target_vocab_size, device=w_ih.device)
            self.table = decoder.embed(ids[None])[0] @ self.w_embedded.t()
            if self.first.dim() == 1:
                self.table += self.first

    def select(self, rows: Tensor) -> None:
        """Only these sources are left, of one hypothesis each."""
        self.source = SourceMemory(*(None if part is None else part.index_select(0, rows) for part in self.source))
        if self.first.dim() == 2:
            self.first = self.first.index_select(0, rows)

    def __call__(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """From the last symbols (N,) and the state, logits (N, V) and the next state."""
        decoder, source = self.decoder, self.source
        embedded = None
        if self.table is None or self.reads_embedding:
            embedded = decoder.embed(tokens.view(-1, self.beams))  # (B, K, E)
        attended: Tensor | None = None  # (B, K, D)
        weights: Tensor | None = None  # (B, K, S)
        coverage = None if state.coverage is None else state.coverage.view(-1, self.beams, state.coverage.shape[-1])
        fed = []
        if decoder.attends_before_step:
            attended, weights = self._attend(state.layers[-1][0], coverage)
            fed.append(attended.flatten(0, 1))
        if self.feeds_back:
            fed.append(state.feed)
        layers = self._recur(self._first_gates(tokens, embedded, fed), state.layers)
        top = layers[-1][1]
        if decoder.attends and not decoder.attends_before_step:
            attended, weights = self._attend(top, coverage)
        top = top.view(-1, self.beams, top.shape[-1])
        readout = decoder._read_out(top, attended, embedded, source)
        pointer = None
        if self.copies:
            pointer = Pointer(decoder._generation_gate(top, attended, embedded, source), weights, source.symbols)
        new_state = DecoderState(
            tuple(layer for layer, _ in layers),
            readout.flatten(0, 1) if self.feeds_back else None,
            (coverage + weights).flatten(0, 1) if self.covers else None,
        )
        return self.logits(readout, pointer).flatten(0, 1), new_state

    def _first_gates(self, tokens: Tensor, embedded: Tensor | None, fed: list[Tensor]) -> Tensor:
        """W_ih x + b of the first layer, (N, G), of x = [embedded ; C ; fed]."""
        if self.table is None:
            gates = torch.addmm(self.first, embedded.flatten(0, 1), self.w_embedded.t())
        else:
            gates = self.table.index_select(0, tokens)
            if self.first.dim() == 2:
                gates += self.first
        for part, weight in zip(fed, self.w_fed, strict=True):
            gates.addmm_(part, weight)
        return gates

    def _recur(self, gates: Tensor, states: tuple[LayerState, ...]) -> list[tuple[LayerState, Tensor]]:
        """The state of each layer, and what it hands upward (N, H)."""
        rnn = self.decoder.rnn
        results: list[tuple[LayerState, Tensor]] = []
        x = gates[:, :0]
        for k, (state, (w_ih, w_hh, _, b_hh)) in enumerate(zip(states, self.weights, strict=True)):
            if k > 0:
                gates = torch.addmm(self.biases[k], x, w_ih.t())
            if rnn.rnn_type == "lstm":
                state = _lstm_gates(gates.addmm_(state[0], w_hh.t()), state[1])
            else:
                state = STEPS[rnn.rnn_type](gates, state, w_hh, b_hh)
            x = rnn._hand_upward(k, x, state[0])
            results.append((state, x))
        return results

    def _attend(self, query: Tensor, coverage: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.decoder._attend(query.view(-1, self.beams, query.shape[-1]), self.source, coverage)


def _lstm_gates(gates: Tensor, cell: Tensor) -> LayerState:
    """`recurrence.lstm_step` from the sum of all its products (N, 4H), which is overwritten."""
    size = cell.shape[-1]
    input_and_forget, g, o = gates.split([2 * size, size, size], dim=1)
    i, f = input_and_forget.sigmoid_().chunk(2, dim=1)
    cell = (f * cell).addcmul_(i, g.tanh_())
    return cell.tanh().mul_(o.sigmoid_()), cell


def select_state(state: DecoderState, rows: Tensor) -> DecoderState:
    """The state of the hypotheses `rows` (M,)."""
    layers = tuple(tuple(part.index_select(0, rows) for part in layer) for layer in state.layers)
    feed, coverage = (None if part is None else part.index_select(0, rows) for part in state[1:])
    return DecoderState(layers, feed, coverage)
