"""`generate()` of a model with an RNN decoder: what `GenerationMixin` of transformers needs to know about it.

All ways of decoding are those of transformers: greedy search, beam search, sampling, prompt lookup, an assistant
model. `fast.search` is asked first for what greedy and beam search find, and may have it sooner. B sources, K beams of
each, N = B * K, T symbols so far.
"""

import copy
import functools
import inspect
from typing import Any

from torch import Tensor
from transformers.generation import (
    GenerationConfig,
    GenerationMixin,
    LogitsProcessorList,
    StoppingCriteriaList,
    WatermarkLogitsProcessor,
)

from .checks import check_changes, check_request
from .fast import replaceable, search
from .generation_rules import check_generation
from .transformers_names import REPLACED_BY_SEARCH, named, one_cache


# So many of the best symbols are looked at by transformers' "selfhash" watermark, whether or not there are so many.
_SELFHASH_SYMBOLS = 40
_COUNTS = ("num_beams", "num_return_sequences")


def checked_generate(stock: Any) -> Any:
    """Return `generate()` of `GenerationMixin` with a look at shapes before, and the cache under either name."""

    @functools.wraps(stock)
    def generate(self: Any, inputs: Any = None, generation_config: Any = None, *args: Any, **kwargs: Any) -> Any:
        if "past_key_values" in kwargs or "cache" in kwargs:
            kwargs |= named(one_cache(kwargs.pop("past_key_values", None), kwargs.pop("cache", None)))
        check_changes(self)
        name = self.main_input_name
        check_request(self.config, name, kwargs.get(name) if inputs is None else inputs, kwargs)
        return stock(self, inputs, generation_config, *args, **kwargs)

    return generate


class RnnSeq2SeqGenerationMixin(GenerationMixin):
    """
    The `generate()` of a model with an RNN decoder: `GenerationMixin` with faster greedy and beam search.

    `use_fast_generation` is a class attribute that can be set on a model too; False: leave all to transformers. A
    class that overrides a method which the fast search replaces, such as `forward`, has to set it to True again if its
    decoding is still that of this class. Which requests are searched fast is said in `fast_search.search`.
    """

    use_fast_generation = True
    config: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if vars(cls).get("use_fast_generation"):
            replaceable(*REPLACED_BY_SEARCH)(cls)

    generate = checked_generate(GenerationMixin.generate)
    # `model.generate.__wrapped__` is the one whose scores have gradients; that of transformers 5.24 is wrapped thrice.
    generate.__wrapped__ = checked_generate(inspect.unwrap(GenerationMixin.generate))

    def _sample(
        self,
        input_ids: Tensor,  # (B, T)
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        synced_gpus: bool = False,
        streamer: Any = None,
        **model_kwargs: Any,
    ) -> Any:
        """Search greedily, or sample."""
        request = (input_ids, logits_processor, stopping_criteria, generation_config)
        found = None if synced_gpus else search(self, *request, model_kwargs, streamer)
        stock: Any = super()
        return stock._sample(*request, synced_gpus, streamer, **model_kwargs) if found is None else found

    def _beam_search(
        self,
        input_ids: Tensor,  # (N, T)
        logits_processor: LogitsProcessorList,
        stopping_criteria: StoppingCriteriaList,
        generation_config: GenerationConfig,
        synced_gpus: bool = False,
        **model_kwargs: Any,
    ) -> Any:
        """Search with beams."""
        request = (input_ids, logits_processor, stopping_criteria, generation_config)
        found = None if synced_gpus else search(self, *request, model_kwargs)
        stock: Any = super()
        return stock._beam_search(*request, synced_gpus, **model_kwargs) if found is None else found

    def _prefill(self, input_ids: Tensor, generation_config: GenerationConfig, *args: Any, **kwargs: Any) -> Any:
        """
        Read a prompt as a whole: to read it in chunks (`prefill_chunk_size`) saves an RNN nothing, and splits the
        masks of the source and of the prompt as those of a decoder alone.
        """
        if generation_config.prefill_chunk_size is not None:
            generation_config = copy.copy(generation_config)
            generation_config.prefill_chunk_size = None
        stock: Any = super()
        return stock._prefill(input_ids, generation_config, *args, **kwargs)

    def _prepare_generation_config(
        self, generation_config: GenerationConfig | None, **kwargs: Any
    ) -> tuple[GenerationConfig, dict[str, Any]]:
        """
        Refuse options that transformers ignores or hands on to tensors, before any work. A count that is None, as
        programs hand it on of a flag that was not given, is not given: the configuration's counts.
        """
        kwargs = {name: value for name, value in kwargs.items() if value is not None or name not in _COUNTS}
        options = dict(vars(self.generation_config))
        if generation_config is not None:
            options |= {name: value for name, value in vars(generation_config).items() if value is not None}
        check_generation({**options, **kwargs}, self.config.target_vocab_size + self.config.copy_slots)
        stock: Any = super()
        prepared: tuple[GenerationConfig, dict[str, Any]] = stock._prepare_generation_config(
            generation_config, **kwargs
        )
        return prepared

    def _get_logits_processor(
        self, generation_config: GenerationConfig, *args: Any, **kwargs: Any
    ) -> LogitsProcessorList:
        """Let a watermark mark the target's symbols: transformers takes `vocab_size`, the number of the source's."""
        stock: Any = super()
        processors: LogitsProcessorList = stock._get_logits_processor(generation_config, *args, **kwargs)
        config: Any = generation_config.watermarking_config
        symbols = self.config.get_text_config(decoder=True).vocab_size
        if getattr(config, "seeding_scheme", None) == "selfhash" and symbols < _SELFHASH_SYMBOLS:
            raise ValueError(
                f"watermarking_config has seeding_scheme='selfhash', which needs at least {_SELFHASH_SYMBOLS} target "
                f"symbols; got {symbols}: use 'lefthash'"
            )
        for i, processor in enumerate(processors):
            is_watermark = config is not None and isinstance(processor, WatermarkLogitsProcessor)
            if is_watermark and processor.vocab_size != symbols:
                processors[i] = config.construct_processor(symbols, processor.fixed_table.device)
        return processors

    def _get_candidate_generator(self, *args: Any, **kwargs: Any) -> Any:
        """Let prompt lookup draft the target's symbols, likewise."""
        stock: Any = super()
        generator = stock._get_candidate_generator(*args, **kwargs)
        if hasattr(generator, "vocab_size"):
            generator.vocab_size = self.config.get_text_config(decoder=True).vocab_size
        return generator
