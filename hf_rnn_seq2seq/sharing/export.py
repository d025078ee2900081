"""A saved model as a folder that needs neither torch nor transformers: ONNX graphs, tokenizers, settings, runtime.

`onnx_graphs.py` writes the graphs; the folder also gets a copy of `runtime.py`, which runs them. The folder of an
earlier export stays whole until all files are there. Needs the extra `export`.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from ..data.files import read_object
from ..data.outputs import check_output_folder, write_json
from ..data.preprocessing import PREPROCESSING_FILE, Preprocessing
from ..data.tokenizers import TARGET_TOKENIZER_FOLDER, load_tokenizers
from ..evaluation.saved_model import load_model, saved_classes
from ..model.modeling_rnn_seq2seq import RnnSeq2SeqForConditionalGeneration
from . import pronounce, runtime
from .one_graph import whole_export
from .onnx_graphs import write_graphs
from .onnx_series import export_series, is_forecaster
from .onnx_values import export_values, value_class
from .search_options import GenerationOptions


# What an export writes.
_FILES = (
    *(runtime.ENCODER, runtime.DECODER_STEP, runtime.RUNTIME_CONFIG, runtime.GENERATION_CONFIG, runtime.COPIED_AS),
    *(pronounce.COPIED_AS, "tokenizer.json", TARGET_TOKENIZER_FOLDER),
)
_TOKENIZERS = ("tokenizer.json", f"{TARGET_TOKENIZER_FOLDER}/tokenizer.json")


def export_model(
    model_dir: str | Path,
    output_dir: str | Path,
    quantize: str | None = "int8",
    reverse_source: bool | None = None,
    overwrite: bool = True,
) -> Path:
    """Write a saved encoder-decoder as a folder for `runtime.RnnSeq2SeqRuntime`; a model of values or labels for
    `RnnValuesRuntime`, a forecaster for `RnnSeriesRuntime`.

    Args:
        model_dir: what `save_pretrained` wrote, with or without tokenizers.
        output_dir: the folder to write. Nothing in it changes before the export is whole.
        quantize: `"int8"`: weights of LSTMs, matrix products and embeddings as 8-bit integers, activations quantised
            as they come (dynamic quantisation); `None`: single precision.
        reverse_source: whether the model was trained on reversed sources, if nothing in `model_dir` says it.
        overwrite: replace the files of an earlier export.

    Returns:
        `output_dir`.

    Raises:
        FileExistsError: `output_dir` holds a model or something else of these names, or an earlier export and
            `overwrite` is not set.
        FileNotFoundError: `model_dir` holds no model.
        ValueError: `quantize` is unknown, the folder holds a model of another kind, or the model or its generation
            config asks for what the runtime cannot do.
    """
    model_dir, output_dir = Path(model_dir), Path(output_dir)
    if value_class(model_dir) is not None or is_forecaster(model_dir):
        if reverse_source is not None:
            raise ValueError(
                f"reverse_source: got {reverse_source}, but {model_dir} holds a model of values or labels"
            )
        export = export_series if is_forecaster(model_dir) else export_values
        return export(model_dir, output_dir, quantize, overwrite)
    if "RnnSeq2SeqForTextToSpectrogram" in saved_classes(model_dir):
        raise ValueError(
            f"{model_dir} holds a RnnSeq2SeqForTextToSpectrogram, wanted a RnnSeq2SeqForConditionalGeneration: there "
            "is no graph of its decoder's step (pre-net, locations attended so far, probability to stop) and no "
            "runtime that repeats it"
        )
    _check_folder(output_dir.resolve(), overwrite)
    if any((model_dir / name).is_file() for name in _TOKENIZERS):
        load_tokenizers(model_dir)  # which refuses those that are damaged
    model = load_model(RnnSeq2SeqForConditionalGeneration, model_dir)
    preprocessing = _preprocessing_of(model_dir, reverse_source)
    settings = model.generation_config.to_diff_dict()
    for name in ("decoder_start_token_id", "eos_token_id", "pad_token_id"):
        if settings.get(name) is None:
            settings[name] = getattr(model.config, name)
    GenerationOptions.of(settings)
    with whole_export(output_dir, runtime, _FILES) as folder:
        write_graphs(model, folder, quantize)
        options = {"vocab_size": model.config.vocab_size, "quantize": quantize, **dataclasses.asdict(preprocessing)}
        _write_settings(folder, model_dir, settings, options)
    return output_dir


def _check_folder(output_dir: Path, overwrite: bool) -> None:
    """Refuse a folder in which something else than an earlier export would be lost."""
    check_output_folder(output_dir, "output_dir")
    there = [name for name in _FILES if (output_dir / name).exists()]
    if there and not (output_dir / runtime.RUNTIME_CONFIG).is_file():
        raise FileExistsError(
            f"output_dir: {output_dir} is no export, and holds {', '.join(there)}, as an export does: wanted another "
            "folder"
        )
    if there and not overwrite:
        raise FileExistsError(
            f"output_dir: {output_dir} holds an earlier export: give --overwrite to replace it, or name another folder"
        )


def _write_settings(output_dir: Path, model_dir: Path, generation: dict[str, Any], options: dict[str, Any]) -> None:
    """Write the files of an export beside the graphs: tokenizers, settings of search and runtime."""
    tokenizers = [name for name in _TOKENIZERS if (model_dir / name).is_file()]
    for name in tokenizers:
        (output_dir / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(model_dir / name, output_dir / name)
    shutil.copyfile(str(pronounce.__file__), output_dir / pronounce.COPIED_AS)
    write_json(output_dir / runtime.GENERATION_CONFIG, generation)
    options_file = model_dir / "tokenizer_config.json"
    write_json(
        output_dir / runtime.RUNTIME_CONFIG,
        {
            "format": runtime.FORMATS[-1],
            **options,
            "source_tokenizer": tokenizers[0] if tokenizers else None,
            "target_tokenizer": tokenizers[-1] if tokenizers else None,
            # whether "</s>" in a text is text; plain tokenizers take it for the end of the sequence
            "split_special_tokens": bool(
                options_file.is_file() and read_object(options_file).get("split_special_tokens")
            ),
        },
    )


def _preprocessing_of(model_dir: Path, reverse_source: bool | None) -> Preprocessing:
    """Return what a model's folder says of its preprocessing, or the caller of `export_model` where it does not."""
    saved = Preprocessing.load(model_dir)
    if saved is None or reverse_source in (None, saved.reverse_source):
        return saved or Preprocessing(reverse_source=bool(reverse_source))
    if (model_dir / PREPROCESSING_FILE).is_file():
        raise ValueError(
            f"reverse_source: got {reverse_source}, but {model_dir / PREPROCESSING_FILE} says {saved.reverse_source}, "
            "and that is how the model was trained; leave it out"
        )
    return dataclasses.replace(saved, reverse_source=bool(reverse_source))
