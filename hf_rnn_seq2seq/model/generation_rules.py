"""What `generate()` refuses: options of the wrong type or out of range, and ids of no symbol.

transformers looks at some of them, hands others on to tensors, and ignores the rest (`num_beams=0`). Each rule is one
row of a table, which recipes are checked by as well. This file travels to the Hub: it imports only its siblings.
"""

from collections.abc import Callable
from typing import Any

from .checks import check_option
from .special_ids import as_list


# (names of options, their kind, what holds of a value that is not None, the same in words)
GENERATION_RULES: tuple[tuple[str, str, Callable[[Any], bool], str], ...] = (
    # Memory is taken for each symbol of each beam: what no search needs is refused before.
    ("num_beams num_return_sequences", "whole number", lambda n: 1 <= n <= 10_000, "at least 1 and at most 10000"),
    ("max_new_tokens max_length", "whole number", lambda n: 1 <= n <= 2**20, f"at least 1 and at most {2**20}"),
    ("min_length min_new_tokens", "whole number", lambda n: 0 <= n <= 2**20, f"at least 0 and at most {2**20}"),
    ("prompt_lookup_num_tokens", "whole number", lambda n: n >= 1, "at least 1"),
    ("no_repeat_ngram_size encoder_no_repeat_ngram_size top_k", "whole number", lambda n: n >= 0, "at least 0"),
    ("repetition_penalty encoder_repetition_penalty max_time", "number", lambda x: 0 < x < float("inf"),
     "more than 0"),
    # 0 is what transformers refuses where it samples, and else does not read.
    ("temperature", "number", lambda x: 0 <= x < float("inf"), "at least 0"),
    ("top_p min_p typical_p ctc_weight", "number", lambda p: 0 <= p <= 1, "at least 0 and at most 1"),
    ("epsilon_cutoff eta_cutoff", "number", lambda p: 0 <= p < 1, "at least 0 and less than 1"),
    ("length_penalty", "number", lambda x: abs(x) < float("inf"), "a finite number"),
    ("do_sample use_cache renormalize_logits remove_invalid_values output_scores output_logits output_attentions "
     "output_hidden_states return_dict_in_generate", "bool", lambda _: True, "True or False"),
    ("suppress_tokens begin_suppress_tokens", "list", lambda ids: all(isinstance(n, int) and n >= 0 for n in ids),
     "a list of ids"),
    ("num_beam_groups", "whole number", lambda n: n == 1, "1: transformers has no search in groups any more"),
    ("diversity_penalty", "number", lambda x: x == 0, "0: transformers has no search in groups any more"),
    ("guidance_scale", "number", lambda x: x == 1, "1: guidance is for a decoder that is a model of its own"),
)  # fmt: skip
# How `generate_speech()` ends.
ENDING_RULES = (
    ("threshold", "number", lambda p: 0 < p <= 1, "more than 0 and at most 1"),
    ("minlenratio", "number", lambda x: 0 <= x < float("inf"), "at least 0"),
    ("maxlenratio", "number", lambda x: 0 <= x < float("inf"), "more than 0"),
)
_IDS = (
    "eos_token_id pad_token_id bos_token_id decoder_start_token_id forced_bos_token_id forced_eos_token_id "
    "suppress_tokens begin_suppress_tokens"
).split()


def check_rules(options: dict[str, Any], rules: Any = GENERATION_RULES) -> None:
    """Refuse options of the wrong type (TypeError) or out of range (ValueError); None is not given."""
    for names, kind, holds, words in rules:
        for name in names.split():
            if options.get(name) is not None:
                check_option(name, options[name], kind, holds, words)


def check_generation(options: dict[str, Any], symbols: int) -> None:
    """Refuse options of a search among so many target symbols."""
    check_rules(options)
    for name in _IDS:
        value: Any = options.get(name)
        for one in as_list(value.tolist() if hasattr(value, "tolist") else value):
            check_option(name, one, "whole number", lambda n: 0 <= n < symbols, f"an id from 0 to {symbols - 1}")
    words_of_ids = options.get("bad_words_ids") or ()
    if not isinstance(words_of_ids, list | tuple) or not all(isinstance(ids, list) and ids for ids in words_of_ids):
        raise TypeError(f"bad_words_ids is {words_of_ids!r}, wanted lists of one id or more")
    for words in words_of_ids:
        for one in words:
            words_of = f"lists of ids from 0 to {symbols - 1}"
            check_option("bad_words_ids", one, "whole number", lambda n: 0 <= n < symbols, words_of)
    decay = options.get("exponential_decay_length_penalty")
    if decay is not None:
        if not isinstance(decay, list | tuple) or len(decay) != 2:
            raise TypeError(f"exponential_decay_length_penalty is {decay!r}, wanted (first step, factor)")
        for one, kind in zip(decay, ("whole number", "number")):
            check_option("exponential_decay_length_penalty", one, kind, lambda x: x >= 0, "(first step, factor)")
