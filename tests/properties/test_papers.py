"""The structures against their papers' equations: NumPy, one sequence, one position and one vector at a time.

Nothing of the package is used here but the names of its parameters. y_0 is the start symbol.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tiny import numpy_step, random_ids, tiny_model


Vector = np.ndarray
Weights = dict[str, np.ndarray]


def weights_of(model: torch.nn.Module) -> Weights:
    return {name.removeprefix("model."): value.numpy() for name, value in model.state_dict().items()}


def linear(w: Weights, name: str, x: Vector) -> Vector:
    y = w[f"{name}.weight"] @ x
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def rnn_layer(w: Weights, side: str, layer: int, suffix: str = "") -> list[np.ndarray]:
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    return [w[f"{side}.rnn.{name}_l{layer}{suffix}"] for name in names]


def encode(model: Any, w: Weights, source: list[int]) -> tuple[list[Vector], list[list[Vector]]]:
    """The annotations h_1 .. h_S of the top layer, and the last state of each layer."""
    config = model.config
    suffixes = ("", "_reverse") if config.bidirectional_encoder else ("",)
    xs, finals = [w["encoder.embed_tokens.weight"][symbol] for symbol in source], []
    for layer in range(config.encoder_layers):
        outputs, last = [], []
        for suffix in suffixes:
            zero = np.zeros(config.encoder_hidden_size // len(suffixes))
            state, ys = [zero, zero] if config.rnn_type == "lstm" else [zero], []
            for x in reversed(xs) if suffix else xs:
                state = numpy_step(config.rnn_type, x, state, rnn_layer(w, "encoder", layer, suffix))
                ys.append(state[0])
            outputs.append(ys[::-1] if suffix else ys)
            last.append(state)
        xs = [np.concatenate(parts) for parts in zip(*outputs, strict=True)]
        finals.append([np.concatenate(parts) for parts in zip(*last, strict=True)])
    return xs, finals


def decoder_step(model: Any, w: Weights, x: Vector, states: list[list[Vector]]) -> list[list[Vector]]:
    """The stacked recurrence: layer k reads what layer k-1 puts out."""
    new_states = []
    for layer, state in enumerate(states):
        new_states.append(numpy_step(model.config.rnn_type, x, state, rnn_layer(w, "decoder", layer)))
        x = new_states[-1][0]
    return new_states


def softmax(scores: list[float]) -> np.ndarray:
    exponentials = np.exp(np.array(scores) - max(scores))
    return exponentials / exponentials.sum()


def maxout(pairs: Vector) -> Vector:
    """s_i = max(s'_{2i-1}, s'_{2i})."""
    return np.array([max(pairs[2 * i], pairs[2 * i + 1]) for i in range(len(pairs) // 2)])


def sutskever(model: Any, w: Weights, source: list[int], targets: list[int]) -> list[Vector]:
    """Structure 1: the decoder starts from the encoder's last states and then reads only what it wrote."""
    _, states = encode(model, w, source)
    logits = []
    for symbol in targets:
        states = decoder_step(model, w, w["decoder.embed_tokens.weight"][symbol], states)
        logits.append(linear(w, "lm_head", states[-1][0]))
    return logits


def cho(model: Any, w: Weights, source: list[int], targets: list[int]) -> list[Vector]:
    """Structure 2: h_t = f(h_{t-1}, y_{t-1}, c), h_0 = tanh(V c), and a maxout over O_h h_t + O_c c + O_y y_{t-1}."""
    _, finals = encode(model, w, source)
    c = finals[-1][0]
    states = [[np.tanh(linear(w, "bridge.hidden_projections.0", c))]]
    logits = []
    for symbol in targets:
        y = w["decoder.embed_tokens.weight"][symbol]
        states = decoder_step(model, w, np.concatenate([y, c]), states)
        pairs = linear(w, "decoder.readout", np.concatenate([states[-1][0], c, y]))
        logits.append(linear(w, "lm_head", maxout(pairs)))
    return logits


def every_step_mean(model: Any, w: Weights, source: list[int], targets: list[int]) -> list[Vector]:
    """Structure 2 without a bridge: c = mean of all h_j is an input of each step, h_0 = 0."""
    annotations, _ = encode(model, w, source)
    c = sum(annotations) / len(annotations)
    states = [[np.zeros(model.config.decoder_hidden_size)]] * model.config.decoder_layers
    logits = []
    for symbol in targets:
        x = np.concatenate([w["decoder.embed_tokens.weight"][symbol], c])
        states = decoder_step(model, w, x, states)
        logits.append(linear(w, "lm_head", states[-1][0]))
    return logits


def both_max(model: Any, w: Weights, source: list[int], targets: list[int]) -> list[Vector]:
    """Both ways for c = max over all h_j: each layer's (h_0, c_0) is a linear map of it, and each step reads it."""
    annotations, _ = encode(model, w, source)
    c = np.array([max(values) for values in zip(*annotations, strict=True)])
    parts = ("hidden_projections", "cell_projections")
    states = [[linear(w, f"bridge.{part}.{k}", c) for part in parts] for k in range(model.config.decoder_layers)]
    logits = []
    for symbol in targets:
        x = np.concatenate([w["decoder.embed_tokens.weight"][symbol], c])
        states = decoder_step(model, w, x, states)
        logits.append(linear(w, "lm_head", np.tanh(linear(w, "decoder.readout", np.concatenate([c, states[-1][0]])))))
    return logits


def textbook(model: Any, w: Weights, source: list[int], targets: list[int]) -> list[Vector]:
    """h_t = tanh(W c + U h_{t-1} + b), y_t = V h_t: the symbols written so far are not read."""
    _, finals = encode(model, w, source)
    c = finals[-1][0]
    states = [[linear(w, "bridge.hidden_projections.0", c)]]
    logits = []
    for _ in targets:
        states = decoder_step(model, w, c, states)
        logits.append(linear(w, "lm_head", states[-1][0]))
    return logits


def bahdanau(model: Any, w: Weights, source: list[int], targets: list[int]) -> list[Vector]:
    """s_i = f(s_{i-1}, y_{i-1}, c_i), c_i = sum_j a_ij h_j, a_i = softmax over j of v.tanh(W s_{i-1} + U h_j)."""
    annotations, finals = encode(model, w, source)
    states = [[np.tanh(linear(w, f"bridge.hidden_projections.{k}", h))] for k, (h,) in enumerate(finals)]
    v = w["decoder.attention.score_projection.weight"][0]
    logits = []
    for symbol in targets:
        y, previous = w["decoder.embed_tokens.weight"][symbol], states[-1][0]
        energies = [
            v @ np.tanh(linear(w, "decoder.attention.query_projection", previous)
                        + linear(w, "decoder.attention.key_projection", h))
            for h in annotations
        ]  # fmt: skip
        c = sum(a * h for a, h in zip(softmax(energies), annotations, strict=True))
        states = decoder_step(model, w, np.concatenate([y, c]), states)
        pairs = linear(w, "decoder.readout", np.concatenate([states[-1][0], c, y]))
        logits.append(linear(w, "lm_head", maxout(pairs)))
    return logits


def luong(model: Any, w: Weights, source: list[int], targets: list[int]) -> list[Vector]:
    """score = h_t W_a h_s, c_t = sum_s a_t(s) h_s, h~_t = tanh(W_c [c_t; h_t]), and h~_t is an input of step t + 1."""
    annotations, states = encode(model, w, source)
    attentional = np.zeros(model.config.readout_size)
    logits = []
    for symbol in targets:
        y = w["decoder.embed_tokens.weight"][symbol]
        states = decoder_step(model, w, np.concatenate([y, attentional]), states)
        h = states[-1][0]
        scores = [float(h @ w["decoder.attention.key_projection.weight"] @ m) for m in annotations]
        c = sum(a * m for a, m in zip(softmax(scores), annotations, strict=True))
        attentional = np.tanh(linear(w, "decoder.readout", np.concatenate([c, h])))
        logits.append(linear(w, "lm_head", attentional))
    return logits


PAPERS: list[Callable[..., list[Vector]]] = [sutskever, cho, every_step_mean, both_max, textbook, bahdanau, luong]


@pytest.mark.parametrize("equations", PAPERS, ids=lambda f: f.__name__)
@torch.no_grad()
def test_logits_are_those_of_the_papers_equations(equations: Callable[..., list[Vector]]) -> None:
    model = tiny_model(equations.__name__)
    w = weights_of(model)
    source, target = random_ids(3, 5), random_ids(3, 4, seed=2)
    logits = model(source, decoder_input_ids=target).logits
    assert logits.std() > 0.1  # not a model that gives the same whatever it reads
    for row in range(3):
        wanted = equations(model, w, source[row].tolist(), target[row].tolist())
        np.testing.assert_allclose(logits[row].numpy(), np.stack(wanted), atol=1e-11)


@pytest.mark.parametrize("unit", ["lstm", "gru", "rnn_tanh"])
@pytest.mark.parametrize("equations", [sutskever, luong], ids=lambda f: f.__name__)
@torch.no_grad()
def test_the_equations_hold_for_every_unit(unit: str, equations: Callable[..., list[Vector]]) -> None:
    model = tiny_model(equations.__name__, rnn_type=unit)
    source, target = random_ids(1, 6), random_ids(1, 3, seed=2)
    wanted = equations(model, weights_of(model), source[0].tolist(), target[0].tolist())
    logits = model(source, decoder_input_ids=target).logits
    np.testing.assert_allclose(logits[0].numpy(), np.stack(wanted), atol=1e-11)


@torch.no_grad()
def test_a_deep_decoder_attends_with_the_previous_state_of_its_top_layer() -> None:
    model = tiny_model("bahdanau", encoder_layers=3, decoder_layers=3)
    source, target = random_ids(1, 6), random_ids(1, 4, seed=2)
    wanted = bahdanau(model, weights_of(model), source[0].tolist(), target[0].tolist())
    logits = model(source, decoder_input_ids=target).logits
    np.testing.assert_allclose(logits[0].numpy(), np.stack(wanted), atol=1e-11)


@torch.no_grad()
def test_layer_norm_and_residual_stand_outside_the_recurrence() -> None:
    # y = LN(h + x) goes upward from layer 2 on (layer 1 has no residual); h itself goes to the next step.
    model = tiny_model("sutskever", layer_norm=True, residual=True, encoder_layers=3, decoder_layers=3)
    w = weights_of(model)

    def norm(side: str, layer: int, x: Vector) -> Vector:
        standard = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
        return standard * w[f"{side}.rnn.norms.{layer}.weight"] + w[f"{side}.rnn.norms.{layer}.bias"]

    def run(side: str, xs: list[Vector], states: list[list[Vector]]) -> tuple[list[Vector], list[list[Vector]]]:
        tops = []
        for x in xs:
            for layer in range(3):
                states[layer] = numpy_step("lstm", x, states[layer], rnn_layer(w, side, layer))
                x = states[layer][0] + (x if layer else 0)
                if (side, layer) != ("encoder", 2):  # nothing reads what the encoder's top layer hands upward
                    x = norm(side, layer, x)
            tops.append(x)
        return tops, states

    source, target = random_ids(1, 5), random_ids(1, 4, seed=2)
    zero = np.zeros(8)
    _, states = run("encoder", [w["encoder.embed_tokens.weight"][i] for i in source[0]], [[zero, zero]] * 3)
    tops, _ = run("decoder", [w["decoder.embed_tokens.weight"][i] for i in target[0]], states)
    logits = model(source, decoder_input_ids=target).logits[0].numpy()
    np.testing.assert_allclose(logits, np.stack([linear(w, "lm_head", top) for top in tops]), atol=1e-11)
