"""What this package takes from transformers that its documentation does not promise, in one table.

A private name may change with any version. Each row says where one is used and why, and a test asks every version for
it. The searches of `generate()` rest on some: where one is missing or has changed, or transformers is newer than what
was tested, `search_is_known` says so once, and the search of transformers does the work.
"""

import functools
import importlib
import inspect
import re
import sys
import warnings
from dataclasses import fields
from typing import Any, NamedTuple, TypeVar

import torch
import transformers
from transformers.cache_utils import Cache
from transformers.modeling_outputs import Seq2SeqLMOutput


# The newest version of transformers that the tests have passed with.
NEWEST_TESTED = (5, 24)
# What transformers calls the decoder's state in calls and outputs: "past_key_values", from 5.24 on "cache".
CACHE_NAME = "cache" if "cache" in {field.name for field in fields(Seq2SeqLMOutput)} else "past_key_values"


AnyCache = TypeVar("AnyCache", bound=Cache)


def named(cache: Cache | None) -> dict[str, Any]:
    """The cache under the name that transformers has for it."""
    return {CACHE_NAME: cache}


def one_cache(past_key_values: AnyCache | None, cache: AnyCache | None) -> AnyCache | None:
    """Return the cache, under whichever of its two names it was given; a name that transformers gives up is told."""
    if past_key_values is not None and cache is not None:
        raise ValueError("got both past_key_values and cache, which are two names of one thing: give one of them")
    name, given = ("past_key_values", past_key_values) if cache is None else ("cache", cache)
    if given is not None and not isinstance(given, Cache):
        raise TypeError(f"{name} is {type(given).__name__}, wanted a Cache, as `generate()` and the model return it")
    if given is not None and name != CACHE_NAME == "cache" and not torch.compiler.is_compiling():
        # In transformers' own words; 5.23 has no other name.
        message = f"`{name}` is deprecated and will be removed in version 6.0.0. Use `{CACHE_NAME}` instead."
        level, frame = 1, sys._getframe()  # of the first that is not of this folder: who gave it
        while frame.f_back is not None and frame.f_globals["__name__"].startswith(__name__.rpartition(".")[0]):
            level, frame = level + 1, frame.f_back
        warnings.warn(message, FutureWarning, stacklevel=level)
    return given


class PrivateName(NamedTuple):
    """A private name of transformers."""

    owner: str  # the class that has it, with its module; or the function by which it is an attribute of others
    name: str
    parameters: str | None  # those of a function that are used, in order; None: it is no function
    used_in: str  # modules of this package
    why: str
    searches: bool = False  # whether the searches of `generate()` rest on it

    def complaint(self) -> str | None:
        """What is wrong with it in this transformers; None: nothing."""
        module, _, path = self.owner.partition(":")
        try:
            owner: Any = functools.reduce(getattr, path.split("."), importlib.import_module(module))
        except (ImportError, AttributeError):
            return f"{self.owner} is gone"
        if not inspect.isclass(owner):
            code = inspect.unwrap(owner).__code__
            known = self.name in code.co_names or self.name in code.co_consts
            return None if known else f"{self.owner} does not use {self.name} any more"
        found: Any = getattr(owner, self.name, None)
        if not (hasattr(owner, self.name) if self.parameters is None else callable(found)):
            return f"{self.owner} has no {self.name} any more"
        if self.parameters is None:
            return None
        parameters = inspect.signature(found).parameters
        if any(p.kind is p.VAR_POSITIONAL for p in parameters.values()):
            return None  # somebody's wrapper, such as one that counts calls
        got = [name for name in parameters if name != "self"]
        wanted = self.parameters.split()
        if [name for name in got if name in wanted] == wanted:
            return None
        return f"{self.owner}.{self.name} takes ({', '.join(got)}), wanted ({', '.join(wanted)}) among them"


_GENERATION = "transformers.generation.utils:GenerationMixin"
_MODEL = "transformers.modeling_utils:PreTrainedModel"
_TRAINER = "transformers.trainer:Trainer"
_TOKENIZER = "transformers.tokenization_utils_tokenizers:TokenizersBackend"
_SEARCH = "input_ids logits_processor stopping_criteria generation_config synced_gpus"

PRIVATE_NAMES = (
    # generation
    PrivateName(_GENERATION, "_sample", f"{_SEARCH} streamer model_kwargs", "generation_rnn_seq2seq",
                "overridden: `generate()` calls it for greedy search and sampling", searches=True),
    PrivateName(_GENERATION, "_beam_search", f"{_SEARCH} model_kwargs", "generation_rnn_seq2seq",
                "overridden: `generate()` calls it for beam search", searches=True),
    PrivateName(_GENERATION, "_get_running_beams_for_next_iteration",
                "topk_log_probs topk_running_sequences topk_running_beam_indices next_token_hits_stopping_criteria "
                "num_beams", "fast_beams", "called: the rule by which beams go on", searches=True),
    PrivateName(_GENERATION, "_update_finished_beams",
                "sequences topk_running_sequences beam_scores topk_log_probs beam_indices topk_running_beam_indices "
                "is_early_stop_heuristic_unsatisfied is_sent_finished next_token_hits_stopping_criteria "
                "top_num_beam_mask num_beams cur_len decoder_prompt_len length_penalty early_stopping",
                "fast_beams", "called: the rule by which finished beams are ranked", searches=True),
    PrivateName(_GENERATION, "_check_early_stop_heuristic",
                "is_early_stop_heuristic_unsatisfied running_beam_scores beam_scores is_sent_finished cur_len "
                "max_length decoder_prompt_len early_stopping length_penalty", "fast_beams",
                "called: the rule by which beam search stops", searches=True),
    PrivateName(_GENERATION, "_beam_search_has_unfinished_sequences",
                "is_early_stop_heuristic_unsatisfied is_sent_finished next_token_hits_stopping_criteria "
                "early_stopping", "fast_beams", "called: likewise", searches=True),
    PrivateName(_GENERATION, "_gather_beams", "tensor beam_indices", "fast_beams",
                "overridden by a cheaper operation", searches=True),
    PrivateName(f"{_GENERATION}._prepare_special_tokens", "_pad_token_tensor", None, "fast_search",
                "read: what finished sequences are filled with", searches=True),
    PrivateName(f"{_GENERATION}._prepare_special_tokens", "_eos_token_tensor", None, "fast_search, fast_beams",
                "read: the symbols that end a sequence", searches=True),
    PrivateName(f"{_GENERATION}._prepare_cache_for_generation", "_is_user_defined", None, "fast_search",
                "read: whether a cache is the user's, whom the searches leave to transformers", searches=True),
    PrivateName(_MODEL, "_load_pretrained_model", "model state_dict checkpoint_files", "pretrained",
                "overridden: a configuration is not believed before the files of the weights are looked at"),
    PrivateName(_GENERATION, "_prefill", "input_ids generation_config model_kwargs", "generation_rnn_seq2seq",
                "overridden: a prompt is read as a whole"),
    PrivateName(_GENERATION, "_get_candidate_generator", "generation_config", "generation_rnn_seq2seq",
                "overridden: prompt lookup takes the number of target symbols from vocab_size, here the source's"),
    PrivateName(_GENERATION, "_expand_inputs_for_generation", "expand_size is_encoder_decoder input_ids model_kwargs",
                "modeling_rnn_seq2seq", "called: repeats a source for the hypotheses to be aligned"),
    PrivateName(_GENERATION, "_get_logits_processor", "generation_config model_kwargs",
                "modeling_speech, ensemble, generation_rnn_seq2seq",
                "overridden: CTC scores come first, and watermarks are of the target's symbols"),
    PrivateName(_GENERATION, "_prepare_generation_config", "generation_config kwargs",
                "modeling_speech, ensemble", "overridden: ctc_weight is one more option"),
    PrivateName(_GENERATION, "_validate_model_kwargs", "model_kwargs", "ensemble",
                "overridden: a member's encoder says which inputs there are"),
    PrivateName("transformers.generation.configuration_utils:GenerationConfig", "_get_default_generation_params", "",
                "option_rules, recipe", "called: the names and types of the options of generation"),
    PrivateName("transformers.generation.configuration_utils:GenerationConfig.__init__", "_from_model_config", None,
                "modeling_speech", "set: ctc_weight in the generation configuration is the user's own"),
    # models
    PrivateName(_MODEL, "_init_weights", "module", "pretrained, modeling_classification",
                "overridden: the initialisation"),
    PrivateName(_MODEL, "_tied_weights_keys", None, "pretrained, modeling_rnn_seq2seq",
                "overridden: which parameters are tied depends on the configuration"),
    PrivateName(_MODEL, "_no_split_modules", None, "pretrained", "set: what stays on one device"),
    PrivateName(_MODEL, "_skip_keys_device_placement", None, "pretrained", "set: the cache stays where it is"),
    PrivateName(_MODEL, "_can_compile_fullgraph", None, "pretrained", "set: it can"),
    PrivateName(_MODEL, "_keys_to_ignore_on_load_unexpected", None, "modeling_encoder, modeling_rnn_seq2seq",
                "set: an encoder, and so a classifier, takes that of a whole model"),
    PrivateName(_MODEL, "_keys_to_ignore_on_load_missing", None, "modeling_classification",
                "set: a regression saved before there was a scale begins with the identity"),
    PrivateName(_MODEL, "_auto_class", None, "pretrained, processing_rnn_seq2seq",
                "read: whether code is saved along, so that a folder can say what it is of"),
    PrivateName(_MODEL, "_resize_token_embeddings", "new_num_tokens pad_to_multiple_of mean_resizing",
                "pretrained, modeling_speech", "overridden: one vocabulary has up to three tables"),
    PrivateName(_MODEL, "_get_resized_embeddings", "old_embeddings new_num_tokens mean_resizing", "pretrained",
                "called: likewise"),
    PrivateName(_MODEL, "_get_resized_lm_head", "old_lm_head new_num_tokens mean_resizing", "modeling_speech",
                "called: the CTC output layer has the vocabulary too"),
    PrivateName("transformers.initialization:normal_", "_is_hf_initialized", None, "recurrence",
                "read: what was loaded is not initialised"),
    PrivateName("transformers.cache_utils:CacheLayerMixin", "_layer_type", None, "state",
                "set: registers the layers that hold the decoder's state"),
    PrivateName("transformers.configuration_utils:PreTrainedConfig", "_dict_from_json_file", "json_file",
                "configuration_rnn_seq2seq", "called: a saved file is read as one, unknown names and all"),
    # tokenizers and Trainer
    PrivateName(_TOKENIZER, "_add_tokens", "new_tokens special_tokens", "tokenization_rnn_seq2seq",
                "overridden: tokens that a user adds are recognised"),
    PrivateName(_TOKENIZER, "_decode", "token_ids skip_special_tokens", "tokenization_rnn_seq2seq",
                "overridden: likewise"),
    PrivateName(_TOKENIZER, "_encode_plus",
                "text text_pair padding_strategy is_split_into_words return_tensors return_overflowing_tokens",
                "tokenization_words, tokenization_two_sides",
                "overridden: adds the characters of each word; encodes a target otherwise than a source"),
    PrivateName(_TOKENIZER, "_save_pretrained", "save_directory", "tokenization_two_sides",
                "overridden: saves the target's tokenizer too"),
    PrivateName("transformers.tokenization_utils_base:PreTrainedTokenizerBase.__call__", "_switch_to_target_mode",
                None, "tokenization_two_sides", "added: called before a target is encoded"),
    PrivateName("transformers.tokenization_utils_base:PreTrainedTokenizerBase.__call__", "_switch_to_input_mode",
                None, "tokenization_two_sides", "added: called before a source is encoded, and after a target"),
    PrivateName("transformers.tokenization_utils_base:PreTrainedTokenizerBase", "_set_processor_class",
                "processor_class", "processing_rnn_seq2seq", "called: what is saved alone names its processor"),
    PrivateName(_TOKENIZER, "_pad", "encoded_inputs padding_side", "tokenization_words",
                "overridden: pads the characters of each word"),
    *(PrivateName("transformers.pipelines.base:Pipeline", f"_load_{part}", None, "pipeline_rnn_seq2seq",
                  "set: what is loaded beside the model, as the documentation of pipelines has it")
      for part in ("processor", "tokenizer", "feature_extractor", "image_processor", "video_processor")),
    PrivateName("transformers.pipelines.base:Pipeline", "_sanitize_parameters", "pipeline_parameters",
                "pipeline_rnn_seq2seq", "overridden: the options of a pipeline, as its documentation has it"),
    PrivateName("transformers.pipelines.base:Pipeline", "_forward", "input_tensors forward_parameters",
                "pipeline_rnn_seq2seq", "overridden: likewise"),
    PrivateName(_TRAINER, "_prepare_inputs", "inputs", "trainer", "called: a batch is augmented on its device"),
    PrivateName(_TRAINER, "_get_num_items_in_batch", "batch_samples device", "trainer",
                "overridden: the values of a future are counted as labels are"),
    PrivateName(_TRAINER, "_run_epoch", "model", "trainer", "overridden: no epoch after the last update"),
    PrivateName(_TRAINER, "_get_grad_norm", "model grad_norm", "trainer", "overridden: what is not finite is noticed"),
    PrivateName(_TRAINER, "_save_checkpoint", "model trial", "trainer", "overridden: a checkpoint is written beside"),
    PrivateName(_TRAINER, "_get_output_dir", "trial", "trainer", "overridden: likewise"),
    PrivateName(_TRAINER, "_save_optimizer_and_scheduler", "output_dir", "trainer",
                "overridden: weights beside their average"),
    PrivateName(_TRAINER, "_load_from_checkpoint", "resume_from_checkpoint model", "trainer", "overridden: likewise"),
    PrivateName(_TRAINER, "_push_from_checkpoint", "checkpoint_folder", "trainer", "overridden: likewise"),
)  # fmt: skip


# What the searches of transformers call at each step, and ours do not, or with other arguments: where a class has a
# method of its own of such a name, the search that calls it does the work.
REPLACED_BY_SEARCH = (
    *("prepare_inputs_for_generation", "create_masks_for_generate", "_prefill", "_reorder_cache"),
    *("_update_model_kwargs_for_generation", "_has_unfinished_sequences", "_optimize_model_for_decode"),
    *("_valid_auto_compile_criteria", "get_compiled_call", "_flatten_beam_dim", "_unflatten_beam_dim"),
    *("_gather_beams", "_get_top_k_continuations", "_get_running_beams_for_next_iteration"),
    *("_update_finished_beams", "_check_early_stop_heuristic", "_beam_search_has_unfinished_sequences"),
)


def why_not(version: str, names: tuple[PrivateName, ...] = PRIVATE_NAMES) -> str | None:
    """Why the searches of `generate()` are left to this version of transformers; None: they are not."""
    if tuple(map(int, re.findall(r"\d+", version)[:2])) > NEWEST_TESTED:
        newest = ".".join(map(str, NEWEST_TESTED))
        return f"transformers {version} is newer than what this model's code was tested with, {newest}"
    complaint = next(filter(None, (name.complaint() for name in names if name.searches)), None)
    return None if complaint is None else f"transformers {version} is not as this model's code knows it: {complaint}"


@functools.cache
def search_is_known() -> bool:
    """Whether this transformers is one that the searches of `generate()` were made for; warns once if not."""
    reason = why_not(transformers.__version__)
    if reason is not None:
        warnings.warn(f"{reason}; generate() uses transformers' own search, which is slower", stacklevel=2)
    return reason is None
