"""The papers behind the options, in BibTeX, for model cards.

`model_card_text.py` says which of them a model is to cite. Keys are the first author and the year, as the docstrings
of the model files name them. Nothing is imported here.
"""

CITATIONS = {
    "elman1990": r"""@article{elman1990,
  title = {Finding Structure in Time},
  author = {Elman, Jeffrey L.},
  journal = {Cognitive Science},
  volume = {14},
  number = {2},
  year = {1990}
}""",
    "hochreiter1997": r"""@article{hochreiter1997,
  title = {Long Short-Term Memory},
  author = {Hochreiter, Sepp and Schmidhuber, J{\"u}rgen},
  journal = {Neural Computation},
  volume = {9},
  number = {8},
  year = {1997}
}""",
    "lafferty2001": r"""@inproceedings{lafferty2001,
  title = {Conditional Random Fields: Probabilistic Models for Segmenting and Labeling Sequence Data},
  author = {Lafferty, John and McCallum, Andrew and Pereira, Fernando},
  booktitle = {Proceedings of ICML},
  year = {2001}
}""",
    "sutskever2014": r"""@inproceedings{sutskever2014,
  title = {Sequence to Sequence Learning with Neural Networks},
  author = {Sutskever, Ilya and Vinyals, Oriol and Le, Quoc V.},
  booktitle = {Advances in Neural Information Processing Systems 27},
  year = {2014}
}""",
    "cho2014": r"""@inproceedings{cho2014,
  title = {Learning Phrase Representations using {RNN} Encoder-Decoder for Statistical Machine Translation},
  author = {Cho, Kyunghyun and van Merri{\"e}nboer, Bart and Gulcehre, Caglar and Bahdanau, Dzmitry and
            Bougares, Fethi and Schwenk, Holger and Bengio, Yoshua},
  booktitle = {Proceedings of EMNLP},
  year = {2014}
}""",
    "bahdanau2015": r"""@inproceedings{bahdanau2015,
  title = {Neural Machine Translation by Jointly Learning to Align and Translate},
  author = {Bahdanau, Dzmitry and Cho, Kyunghyun and Bengio, Yoshua},
  booktitle = {Proceedings of ICLR},
  year = {2015}
}""",
    "luong2015": r"""@inproceedings{luong2015,
  title = {Effective Approaches to Attention-based Neural Machine Translation},
  author = {Luong, Minh-Thang and Pham, Hieu and Manning, Christopher D.},
  booktitle = {Proceedings of EMNLP},
  year = {2015}
}""",
    "huang2015": r"""@misc{huang2015,
  title = {Bidirectional {LSTM-CRF} Models for Sequence Tagging},
  author = {Huang, Zhiheng and Xu, Wei and Yu, Kai},
  eprint = {1508.01991},
  archiveprefix = {arXiv},
  year = {2015}
}""",
    "ling2015": r"""@inproceedings{ling2015,
  title = {Finding Function in Form: Compositional Character Models for Open Vocabulary Word Representation},
  author = {Ling, Wang and Dyer, Chris and Black, Alan W. and Trancoso, Isabel and Fermandez, Ramon and
            Amir, Silvio and Marujo, Luis and Luis, Tiago},
  booktitle = {Proceedings of EMNLP},
  year = {2015}
}""",
    "raffel2015": r"""@misc{raffel2015,
  title = {Feed-Forward Networks with Attention Can Solve Some Long-Term Memory Problems},
  author = {Raffel, Colin and Ellis, Daniel P. W.},
  eprint = {1512.08756},
  archiveprefix = {arXiv},
  year = {2015}
}""",
    "lample2016": r"""@inproceedings{lample2016,
  title = {Neural Architectures for Named Entity Recognition},
  author = {Lample, Guillaume and Ballesteros, Miguel and Subramanian, Sandeep and Kawakami, Kazuya and Dyer, Chris},
  booktitle = {Proceedings of NAACL-HLT},
  year = {2016}
}""",
    "chan2016": r"""@inproceedings{chan2016,
  title = {Listen, Attend and Spell: A Neural Network for Large Vocabulary Conversational Speech Recognition},
  author = {Chan, William and Jaitly, Navdeep and Le, Quoc V. and Vinyals, Oriol},
  booktitle = {Proceedings of ICASSP},
  year = {2016}
}""",
    "see2017": r"""@inproceedings{see2017,
  title = {Get To The Point: Summarization with Pointer-Generator Networks},
  author = {See, Abigail and Liu, Peter J. and Manning, Christopher D.},
  booktitle = {Proceedings of ACL},
  year = {2017}
}""",
    "watanabe2017": r"""@article{watanabe2017,
  title = {Hybrid {CTC}/Attention Architecture for End-to-End Speech Recognition},
  author = {Watanabe, Shinji and Hori, Takaaki and Kim, Suyoun and Hershey, John R. and Hayashi, Tomoki},
  journal = {IEEE Journal of Selected Topics in Signal Processing},
  volume = {11},
  number = {8},
  year = {2017}
}""",
}
