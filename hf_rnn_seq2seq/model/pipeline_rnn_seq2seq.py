"""The pipeline "seq2seq-generation": text or audio in, ranked hypotheses out, with scores, tokens and alignments.

transformers 5 has no pipeline for models that write a text for a text any more. Shapes: B batch, N hypotheses of a
source, S source length, T target length, V vocabulary. This file travels to the Hub: it imports only the standard
library, torch, transformers and the flat files beside it.
"""

import os
from typing import Any

from torch import Tensor
from transformers import BatchFeature, GenerationConfig, Pipeline, PreTrainedModel, ProcessorMixin
from transformers.pipelines.audio_utils import ffmpeg_read

from .option_rules import GENERATION_TASK
from .processing_rnn_seq2seq import RnnSeq2SeqProcessor


# Which class a folder's model is of, the pickier first: a speech model refuses to be made of a text model's folder.
GENERATION_MODELS = ("AutoModelForSpeechSeq2Seq", "AutoModelForSeq2SeqLM")


class RnnSeq2SeqGenerationPipeline(Pipeline):
    """
    What a model of this family writes for a text, or for audio.

    A source is a text; of a speech model an array of samples, a dictionary with `array` (or `raw`) and
    `sampling_rate`, or the name of an audio file, which `ffmpeg` reads. For each source it returns its hypotheses,
    best first, each a dictionary of

    - `generated_text`,
    - `score`: the natural logarithm of the model's probability of all tokens and the end, summed. CTC and whatever
      else the search ranks by (`length_penalty`, ...) are not in it,
    - `tokens` and `token_scores`: what was written, with the end, and the logarithm of each one's probability,
    - `source_tokens` (of a text) and `alignments`, if asked for: the attention of each token to each source position.

    Example:

    ```python
    >>> import hf_rnn_seq2seq
    >>> from transformers import pipeline

    >>> pronounce = pipeline("seq2seq-generation", model=folder)
    >>> pronounce("hello", num_return_sequences=3, num_beams=5)
    ```
    """

    model: Any
    processor: Any
    _load_processor: Any = None  # if there is one: with a model in memory its parts may be given
    _load_tokenizer: Any = False
    _load_feature_extractor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False

    def __init__(
        self, model: Any, processor: Any = None, tokenizer: Any = None, feature_extractor: Any = None, **kwargs: Any
    ):
        if not isinstance(model, PreTrainedModel):
            raise TypeError(
                f"model must be a loaded model; got {model!r:.80} (transformers.pipeline loads one by name)"
            )
        if not isinstance(processor, ProcessorMixin | None):
            raise TypeError(f"processor must be a processor; got {processor!r:.80}")
        if processor is None and tokenizer is not None:
            processor = RnnSeq2SeqProcessor(tokenizer, feature_extractor)
        if processor is None and os.path.isdir(str(model.name_or_path)):
            processor = RnnSeq2SeqProcessor.from_pretrained(model.name_or_path)  # of whatever version
        if processor is None:
            raise ValueError("give a processor, or a tokenizer, and of a speech model its feature_extractor")
        super().__init__(model=model, processor=processor, **kwargs)
        self.reads_audio = self.model.main_input_name == "input_features"
        if self.reads_audio and self.processor.feature_extractor is None:
            raise ValueError("feature_extractor: the model reads audio or frames, but its processor has none")

    def _sanitize_parameters(
        self, return_alignments: bool | None = None, **generate_options: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        forward = dict(generate_options)
        if not isinstance(return_alignments, bool | None):
            raise TypeError(f"return_alignments is {return_alignments!r}, wanted True or False")
        if not isinstance(generate_options.get("generation_config"), GenerationConfig | None):
            got = repr(generate_options["generation_config"])
            raise TypeError(f"generation_config is {got:.80}, wanted a GenerationConfig")
        if return_alignments is not None:
            forward["return_alignments"] = return_alignments
        return {}, forward, {}

    def preprocess(self, inputs: Any) -> BatchFeature:  # type: ignore[override]
        """Return one source as the model's inputs, a batch of one."""
        if not self.reads_audio:
            if not isinstance(inputs, str):
                raise ValueError(f"a source must be a text, several a list of texts; got {type(inputs).__name__}")
            if not inputs.strip():
                raise ValueError(f"a source must be a text; got {inputs!r}, which is blank")
            # What it wrote in place of names is put back at the end.
            return BatchFeature({**self.processor([inputs], return_tensors="pt"), "text": inputs})
        rate = None
        if isinstance(inputs, dict):
            if ("array" in inputs) == ("raw" in inputs) or "sampling_rate" not in inputs:
                raise ValueError(f"audio must have one of array and raw, and sampling_rate; got {', '.join(inputs)}")
            inputs, rate = inputs["array"] if "array" in inputs else inputs["raw"], inputs["sampling_rate"]
        elif isinstance(inputs, str):
            rate = self.processor.feature_extractor.sampling_rate
            with open(inputs, "rb") as file:
                inputs = ffmpeg_read(file.read(), rate)
        return self.processor(audio=[inputs], sampling_rate=rate, return_tensors="pt")

    def _forward(  # type: ignore[override]
        self, inputs: Any, return_alignments: bool = False, **generate_options: Any
    ) -> dict[str, Any]:
        """Search, and score what was found: one more pass with the hypotheses given."""
        model, sources = self.model, dict(inputs)
        texts = sources.pop("text", None)
        if return_alignments and model.config.attention_type == "none":
            raise ValueError("return_alignments: the model has attention_type='none', there is nothing to return")
        sequences = model.generate(**sources, **generate_options)  # (B N, T + 1)
        sequences = sequences if isinstance(sequences, Tensor) else sequences.sequences
        batch = len(next(iter(sources.values())))
        repeated = {name: value.repeat_interleave(len(sequences) // batch, 0) for name, value in sources.items()}
        outputs = model(
            **repeated, decoder_input_ids=sequences[:, :-1], output_attentions=return_alignments, use_cache=False
        )
        logits = outputs.logits.float()  # (B N, T, V)
        scores = logits.log_softmax(-1).gather(-1, sequences[:, 1:, None]).squeeze(-1)  # (B N, T)
        found = {"sequences": sequences, "scores": scores, **sources}
        if return_alignments:
            found["alignments"] = outputs.cross_attentions[0][:, 0]  # (B N, T, S)
        # A row a source, so that the pipeline takes a batch apart: (B, N, ...).
        names = ("sequences", "scores", "alignments")
        rows = {name: value.unflatten(0, (batch, -1)) if name in names else value for name, value in found.items()}
        return rows if texts is None else {**rows, "text": texts}

    def postprocess(self, model_outputs: dict[str, Any]) -> list[dict[str, Any]]:  # type: ignore[override]
        """Return the hypotheses of one source in words."""
        sequences, scores = model_outputs["sequences"][0], model_outputs["scores"][0]  # (N, T + 1), (N, T)
        source = model_outputs.get("input_ids")  # (1, S)
        mask = model_outputs.get("attention_mask")  # (1, S)
        length = None if mask is None or self.reads_audio else int(mask[0].sum())
        hypotheses = []
        for number, sequence in enumerate(sequences.tolist()):
            count = self._written(sequence[1:])
            ids = sequence[1 : count + 1]
            text = self.processor.decode(ids, skip_special_tokens=True)
            if isinstance(self.processor, RnnSeq2SeqProcessor) and not self.reads_audio:
                text = self.processor.lexicalise(text, model_outputs["text"])
            hypothesis: dict[str, Any] = {
                "generated_text": text,
                "score": float(scores[number, :count].sum()),
                "tokens": self.processor.target_tokenizer.convert_ids_to_tokens(ids),
                "token_scores": scores[number, :count].tolist(),
            }
            if "alignments" in model_outputs:
                weights = model_outputs["alignments"][0, number, :count]  # (T, S)
                hypothesis["alignments"] = weights[:, :length].tolist()
                if source is not None:
                    ids = source[0, :length].tolist()
                    hypothesis["source_tokens"] = self.processor.source_tokenizer.convert_ids_to_tokens(ids)
            hypotheses.append(hypothesis)
        return hypotheses

    def _written(self, tokens: list[int]) -> int:
        """Return how many tokens the search has written: up to an end, which counts, or all but the padding."""
        config: GenerationConfig = self.model.generation_config
        ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        for place, token in enumerate(tokens):
            if token in ends:
                return place + 1
        while tokens and tokens[-1] == config.pad_token_id:
            tokens = tokens[:-1]
        return len(tokens)


__all__ = ["GENERATION_MODELS", "GENERATION_TASK", "RnnSeq2SeqGenerationPipeline"]
